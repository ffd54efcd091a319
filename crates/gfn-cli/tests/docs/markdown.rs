//! What tests need of Markdown: fenced blocks, links and anchors.

/// A fenced block of code.
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    /// The first word behind the fence.
    pub language: String,
    /// The rest behind the fence.
    pub mark: String,
    /// What is between the fences.
    pub text: String,
}

/// The blocks of a file, and the lines outside of them with their numbers.
pub fn split(markdown: &str) -> (Vec<Block>, Vec<(usize, &str)>) {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for (i, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (Some(info), None) => {
                let (language, mark) = info.trim().split_once(' ').unwrap_or((info.trim(), ""));
                let (language, mark) = (language.to_owned(), mark.trim().to_owned());
                open = Some(Block { line: i + 1, language, mark, text: String::new() });
            }
            (None, None) => prose.push((i + 1, line)),
        }
    }
    assert!(open.is_none(), "a block is not closed");
    (blocks, prose)
}

/// A line without its spans of code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The targets of links in lines of prose, with their lines.
pub fn links(prose: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for &(i, line) in prose {
        let line = without_code(line);
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            found.push((i, target.to_owned()));
        }
    }
    found
}

/// The anchors that GitHub gives to headings.
pub fn anchors(prose: &[(usize, &str)]) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in prose {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let slug: String = title.trim().to_lowercase().chars().filter(kept).collect();
        let slug = slug.replace(' ', "-");
        let again = anchors.iter().filter(|known| **known == slug).count();
        anchors.push(if again == 0 { slug } else { format!("{slug}-{again}") });
    }
    anchors
}

#[test]
fn markdown_is_read_as_github_reads_it() {
    let text = "# A *b* `c`: d_e\n[x](y.md#z) `[no](no)` [p](q)\n```sh not-run (why)\n[a](b)\n```\n# A\n# A\n";
    let (blocks, prose) = split(text);
    assert_eq!(blocks.len(), 1);
    let block = &blocks[0];
    assert_eq!((block.line, &block.language[..], &block.mark[..]), (3, "sh", "not-run (why)"));
    assert_eq!(block.text, "[a](b)\n");
    assert_eq!(links(&prose), [(2, "y.md#z".to_owned()), (2, "q".to_owned())]);
    assert_eq!(anchors(&prose), ["a-b-c-d_e", "a", "a-1"]);
}
