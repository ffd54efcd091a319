//! Conversions against the reference data, whole files byte for byte.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::data::{self, Convert, FetchOptions};
use super::hash;
use super::server::{Behaviour, Server};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("GFN_REFERENCE_DATA")).join(file)).unwrap()
}

fn reverse_complement(string: &str) -> String {
    let pair = |letter| match letter {
        'A' => 'T',
        'C' => 'G',
        'G' => 'C',
        _ => 'A',
    };
    string.chars().rev().map(pair).collect()
}

/// The public text file: one line for a string and its reverse complement, with more columns.
fn six6_source(table: &str) -> String {
    let mut text = "8-mer\t8-mer\tE-score\tMedian\tZ-score\n".to_owned();
    for line in table.lines().skip(1) {
        let mut fields = line.split(',');
        let (string, score) = (fields.next().unwrap(), fields.next().unwrap());
        let reverse = reverse_complement(string);
        if *string <= *reverse {
            text += &format!("{string}\t{reverse}\t{score}\t1234.50\t-0.5000\n");
        }
    }
    text
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn tfbind8_is_fetched_and_converted() {
    let table = read("tfbind8_six6_ref_r1.csv");
    let source = six6_source(&table);
    assert_eq!(source.lines().count(), 1 + 32_896);
    let behaviour =
        Behaviour { body: source.clone().into_bytes(), cut: Some(500_000), ..Behaviour::default() };
    let server = Server::start(Behaviour { ranges: true, ..behaviour });
    let entry = data::find("tfbind8").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("six6");
    let fetch = || {
        let mut ignore = |_, _| {};
        let options = FetchOptions { url_override: Some(&url), ..FetchOptions::new(&mut ignore) };
        data::fetch(entry, dir.path(), options)
    };
    fetch().unwrap_err();
    server.set(|behaviour| behaviour.cut = None);
    let installed = fetch().unwrap();
    assert!(std::fs::read_to_string(installed.path()).unwrap() == table);
    assert_eq!(server.seen()[1].range, "bytes=500000-");
    // The source is accepted where it is at hand.
    let file = dir.path().join("SIX6_REF_R1_8mers.txt");
    std::fs::write(&file, &source).unwrap();
    let other = tempfile::tempdir().unwrap();
    let imported = data::import(entry, &file, other.path()).unwrap();
    assert!(std::fs::read_to_string(imported.path()).unwrap() == table);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn tables_of_binding_scores_must_be_whole() {
    let source = six6_source(&read("tfbind8_six6_ref_r1.csv"));
    let refusal = |source: &str| Convert::Six6.apply(source.as_bytes()).unwrap_err();
    let lines: Vec<&str> = source.lines().collect();
    assert!(refusal(&lines[..lines.len() - 1].join("\n")).contains("65536"));
    let more = |line: &str| format!("{source}{line}\n");
    assert!(Convert::Six6.apply(more("a comment").as_bytes()).is_ok());
    assert!(refusal(&more("AAAAAAAA TTTTTTTT 0.5")).contains("second score for AAAAAAAA"));
    assert!(refusal(&more("AAAAAAAA TTTTTTTA 0.5")).contains("line 32898"));
    assert!(refusal(&more("AAAAAAAA TTTTTTTT inf")).contains("no score on line 32898"));
    assert!(Convert::Six6.apply(b"\xff").is_err());
}

/// The dictionary as Python writes it in protocol 4, after the first entry by reference.
fn qm9_source(table: &str) -> Vec<u8> {
    let mut pickle = b"\x80\x04}\x94(".to_vec();
    let mut first = true;
    // Any order will do.
    for line in table.lines().skip(1).collect::<Vec<_>>().into_iter().rev() {
        let (blocks, value) = line.rsplit_once(',').unwrap();
        let digits = blocks.split(',').map(|block| char::from_digit(block.parse().unwrap(), 11));
        let key: String = digits.map(Option::unwrap).collect();
        pickle.extend(b"\x8c\x05");
        pickle.extend(key.as_bytes());
        pickle.extend(if first {
            &b"\x8c\x15numpy.core.multiarray\x8c\x06scalar\x93q\x01\
                       \x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x89\x88\x87Rq\x02\
                       (K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"[..]
        } else {
            b"h\x01h\x02"
        });
        first = false;
        pickle.extend(b"C\x04");
        pickle.extend(value.parse::<f32>().unwrap().to_le_bytes());
        pickle.extend(b"\x86R");
    }
    pickle.extend(b"u.");
    pickle
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn qm9_strings_are_converted() {
    let table = read("qm9str_rewards.csv");
    let source = qm9_source(&table);
    let converted = Convert::Qm9Pickle.apply(&source).unwrap();
    assert!(converted == table.as_bytes());
    assert_eq!(data::find("qm9str").unwrap().sha256, Some(&*hash(&converted)));
    let short = table.rsplit_once("\n10,10,10,10,10,").unwrap().0;
    let refusal = Convert::Qm9Pickle.apply(&qm9_source(short)).unwrap_err();
    assert!(refusal.contains("161050"), "{refusal}");
    assert!(Convert::Qm9Pickle.apply(b"\x80\x04]\x94.").unwrap_err().contains("dictionary"));
}

/// A pickled list of lists of small numbers, or of their text.
fn modes_source(rows: &[Vec<u8>], text: Option<&dyn Fn(u8) -> char>) -> Vec<u8> {
    let mut pickle = b"\x80\x04](".to_vec();
    for row in rows {
        match text {
            Some(letter) => {
                pickle.extend([0x8c, row.len() as u8]);
                pickle.extend(row.iter().map(|&x| letter(x) as u8));
            }
            None => {
                pickle.extend(b"](");
                pickle.extend(row.iter().flat_map(|&x| [b'K', x]));
                pickle.push(b'e');
            }
        }
    }
    pickle.extend(b"e.");
    pickle
}

fn check_modes(name: &str, rows: &[Vec<u8>], letter: &dyn Fn(u8) -> char) {
    let entry = data::find(name).unwrap();
    for text in [None, Some(letter)] {
        // Again and in any order: a set.
        let mut twice: Vec<Vec<u8>> = rows.iter().rev().cloned().collect();
        twice.extend_from_slice(&rows[..10]);
        let converted = entry.convert.apply(&modes_source(&twice, text)).unwrap();
        assert_eq!(entry.sha256, Some(&*hash(&converted)));
        assert_eq!(entry.bytes, Some(converted.len() as u64));
        let refusal = entry.convert.apply(&modes_source(&rows[1..], text)).unwrap_err();
        assert!(refusal.contains(&format!("expected {}", rows.len())), "{refusal}");
    }
    let mut long = rows.to_vec();
    long[0].push(0);
    entry.convert.apply(&modes_source(&long, None)).unwrap_err();
    let mut high = rows.to_vec();
    high[0][0] = 18;
    entry.convert.apply(&modes_source(&high, None)).unwrap_err();
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn modes_are_converted() {
    let digit = |letter| "ACGT".find(letter).unwrap() as u8;
    let table = read("tfbind8_modes.csv");
    let strings = table.lines().skip(1).map(|line| line.split(',').next().unwrap());
    let rows: Vec<Vec<u8>> = strings.map(|text| text.chars().map(digit).collect()).collect();
    check_modes("tfbind8_modes", &rows, &|x| ['A', 'C', 'G', 'T'][x as usize]);
    check_modes("tfbind8_modes", &rows, &|x| (b'0' + x) as char);
    let table = read("sehstr_modes_159.csv");
    let row = |line: &str| line.split(',').map(|block| block.parse().unwrap()).collect();
    let rows: Vec<Vec<u8>> = table.lines().skip(1).map(row).collect();
    check_modes("sehstr_modes", &rows, &|x| char::from_digit(x.into(), 18).unwrap());
}

/// 22 arrays as Python pickles them in protocol 4: the first in full, then by reference.
fn arrays_source(file: &[u8]) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let names = [
        "lin0.weight",
        "lin0.bias",
        "conv.lin.weight",
        "conv.bias",
        "conv.nn.0.weight",
        "conv.nn.0.bias",
        "conv.nn.2.weight",
        "conv.nn.2.bias",
        "gru.weight_ih",
        "gru.weight_hh",
        "gru.bias_ih",
        "gru.bias_hh",
        "stems",
        "stems",
        "stems",
        "stems",
        "set2set.lstm.weight_ih",
        "set2set.lstm.weight_hh",
        "set2set.lstm.bias_ih",
        "set2set.lstm.bias_hh",
        "lin3.weight",
        "lin3.bias",
    ];
    let mut pickle = b"\x80\x04](".to_vec();
    for (i, name) in names.into_iter().enumerate() {
        pickle.extend(match i {
            0 => {
                &b"\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93q\x01\
                    \x8c\x05numpy\x8c\x07ndarray\x93q\x02"[..]
            }
            _ => b"h\x01h\x02",
        });
        pickle.extend(b"K\x00\x85C\x01b\x87R(K\x01");
        let (shape, data) = match tensors.tensor(name) {
            Ok(tensor) => (tensor.shape().to_vec(), tensor.data().to_vec()),
            Err(_) => (vec![3], vec![0; 12]),
        };
        for &length in &shape {
            pickle.push(b'J');
            pickle.extend((length as u32).to_le_bytes());
        }
        pickle.push(if shape.len() == 1 { 0x85 } else { 0x86 });
        pickle.extend(match i {
            0 => {
                &b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x89\x88\x87R\
                    (K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbq\x03"[..]
            }
            _ => b"h\x03",
        });
        pickle.extend(b"\x89B");
        pickle.extend((data.len() as u32).to_le_bytes());
        pickle.extend(data);
        pickle.extend(b"tb");
    }
    pickle.extend(b"e.");
    pickle
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn the_seh_network_is_converted() {
    let path = Path::new(env!("GFN_REFERENCE_DATA")).join("seh_proxy_bengio2021.safetensors");
    let file = std::fs::read(path).unwrap();
    let pack = |pickle: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(pickle).unwrap();
        packed.finish().unwrap()
    };
    let pickle = arrays_source(&file);
    let source = pack(&pickle);
    assert!(Convert::SehNetwork.apply(&source).unwrap() == file);
    let refusal = |source: &[u8]| Convert::SehNetwork.apply(source).unwrap_err();
    assert!(refusal(&pickle).contains("unpacked"));
    assert!(refusal(&source[..source.len() / 2]).contains("unpacked"));
    assert!(refusal(&pack(b"\x80\x04].")).contains("0 arrays, expected 22"));
    // Zeros without end fill no memory.
    assert!(refusal(&pack(&vec![0; 64 << 20])).contains("more than"));
    let mut turned = pickle;
    let place = turned.windows(4).position(|bytes| bytes == [71, 0, 0, 0]).unwrap();
    turned.swap(place, place - 5);
    assert!(refusal(&pack(&turned)).contains("`lin0.weight` of shape [71, 64], not [64, 71]"));
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn fragments_are_converted() {
    let list = read("fragments_105.json");
    let entry = data::find("sehblocks").unwrap();
    let converted = entry.convert.apply(list.as_bytes()).unwrap();
    assert_eq!(entry.sha256, Some(&*hash(&converted)));
    assert_eq!(entry.bytes, Some(converted.len() as u64));
    let blocks = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    let (found, expected) = (blocks(&converted), blocks(list.as_bytes()));
    assert_eq!(converted.iter().filter(|&&byte| byte == b'\n').count(), 107);
    // The published table, by columns.
    let mut columns = BTreeMap::from([("block_name", serde_json::Map::new())]);
    for (i, block) in expected["blocks"].as_array().unwrap().iter().enumerate() {
        for (column, key) in
            [("block_name", "name"), ("block_smi", "smiles"), ("block_r", "attach")]
        {
            columns.entry(column).or_default().insert(i.to_string(), block[key].clone());
        }
        for key in ["smiles", "attach"] {
            assert_eq!(found["blocks"][i][key], block[key]);
        }
    }
    type Table = BTreeMap<&'static str, serde_json::Map<String, serde_json::Value>>;
    let source = |columns: &Table| serde_json::to_vec(columns).unwrap();
    assert!(entry.convert.apply(&source(&columns)).unwrap() == converted);
    columns.get_mut("block_r").unwrap().remove("7");
    let refusal = |source: &[u8]| entry.convert.apply(source).unwrap_err();
    assert!(refusal(&source(&columns)).contains("different lengths"));
    columns.get_mut("block_smi").unwrap().remove("7");
    assert!(refusal(&source(&columns)).contains("104 fragments, expected 105"));
    assert!(refusal(b"{}").contains("no table of fragments"));
}

/// Files that need no conversion.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn hashes_and_sizes_are_right() {
    let renamed = BTreeMap::from([
        ("qm9str", "qm9str_rewards.csv"),
        ("tfbind8", "tfbind8_six6_ref_r1.csv"),
        ("sehproxy", "seh_proxy_bengio2021.safetensors"),
    ]);
    for entry in data::CATALOGUE {
        let file = renamed.get(entry.name).copied().unwrap_or(entry.file);
        let path = Path::new(env!("GFN_REFERENCE_DATA")).join(file);
        // The modes are in another form there.
        if let (Ok(bytes), None) = (std::fs::read(path), entry.name.strip_suffix("_modes")) {
            assert_eq!(entry.sha256, Some(&*hash(&bytes)), "{}", entry.name);
            assert_eq!(entry.bytes, Some(bytes.len() as u64), "{}", entry.name);
        }
    }
}

/// The text table that the converted one was made of, with either kind of line ends.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn sachs_is_imported_as_published() {
    let table = read("sachs_observational.csv");
    let dir = tempfile::tempdir().unwrap();
    let entry = data::find("sachs").unwrap();
    for source in [table.replace(',', "\t"), table.replace(',', " ").replace('\n', "\r\n")] {
        assert_eq!(Convert::Spaces.apply(source.as_bytes()).unwrap(), table.as_bytes());
        let file = dir.path().join("sachs.data.txt");
        std::fs::write(&file, source).unwrap();
        let other = tempfile::tempdir().unwrap();
        let imported = data::import(entry, &file, other.path()).unwrap();
        assert!(std::fs::read_to_string(imported.path()).unwrap() == table);
    }
}
