//! Pickles written by CPython 3.11 and NumPy 1.26, hostile ones, and damaged ones.

use super::*;

const PLAIN: &[&str] = &[
    "80027d71002858010000006171015d7102284b014afeffffff4d2c014a701101008a060000000000018a06\
        0000000000ff473ff80000000000004e88896558010000006271032858010000007871045802000000c3a9\
        7105635f636f646563730a656e636f64650a7106580300000000c3bf710758060000006c6174696e317108\
        86710952710a2974710b580100000063710c4b0185710d580100000064710e4b014b0286710f5801000000\
        6571104b014b024b03877111752e",
    "80037d71002858010000006171015d7102284b014afeffffff4d2c014a701101008a060000000000018a06\
        0000000000ff473ff80000000000004e88896558010000006271032858010000007871045802000000c3a9\
        7105430200ff71062974710758010000006371084b01857109580100000064710a4b014b0286710b580100\
        000065710c4b014b024b0387710d752e",
    "8004956c000000000000007d94288c0161945d94284b014afeffffff4d2c014a701101008a060000000000\
        018a060000000000ff473ff80000000000004e8889658c016294288c0178948c02c3a994430200ff942974\
        948c0163944b0185948c0164944b014b0286948c0165944b014b024b038794752e",
    "8005956c000000000000007d94288c0161945d94284b014afeffffff4d2c014a701101008a060000000000\
        018a060000000000ff473ff80000000000004e8889658c016294288c0178948c02c3a994430200ff942974\
        948c0163944b0185948c0164944b014b0286948c0165944b014b024b038794752e",
];

const TABLE: &[&str] = &[
    "80027d710028580500000030303030617101636e756d70792e636f72652e6d756c746961727261790a7363\
        616c61720a7102636e756d70790a64747970650a71035802000000663471048988877105527106284b0358\
        010000003c71074e4e4e4affffffff4affffffff4b0074710862635f636f646563730a656e636f64650a71\
        0958040000004a7b0941710a58060000006c6174696e31710b86710c52710d86710e52710f580500000030\
        30303130711068026806680958060000000000c2a0c2bf7111680b867112527113867114527115752e",
    "80037d710028580500000030303030617101636e756d70792e636f72652e6d756c746961727261790a7363\
        616c61720a7102636e756d70790a64747970650a71035802000000663471048988877105527106284b0358\
        010000003c71074e4e4e4affffffff4affffffff4b007471086243044a7b0941710986710a52710b580500\
        00003030303130710c6802680643040000a0bf710d86710e52710f752e",
    "80049588000000000000007d94288c053030303061948c156e756d70792e636f72652e6d756c7469617272\
        6179948c067363616c61729493948c056e756d7079948c0564747970659493948c02663494898887945294\
        284b038c013c944e4e4e4affffffff4affffffff4b0074946243044a7b094194869452948c053030303130\
        946804680a43040000a0bf9486945294752e",
    "80059588000000000000007d94288c053030303061948c156e756d70792e636f72652e6d756c7469617272\
        6179948c067363616c61729493948c056e756d7079948c0564747970659493948c02663494898887945294\
        284b038c013c944e4e4e4affffffff4affffffff4b0074946243044a7b094194869452948c053030303130\
        946804680a43040000a0bf9486945294752e",
];

const ROWS: &[&str] = &[
    "8002636e756d70792e636f72652e6d756c746961727261790a5f7265636f6e7374727563740a7100636e75\
        6d70790a6e6461727261790a71014b00857102635f636f646563730a656e636f64650a7103580100000062\
        710458060000006c6174696e317105867106527107877108527109284b014b024b0386710a636e756d7079\
        0a64747970650a710b58020000006938710c898887710d52710e284b0358010000003c710f4e4e4e4affff\
        ffff4affffffff4b0074711062896803583800000000000000000000000100000000000000020000000000\
        000003000000000000000200000000000000c3bfc3bfc3bfc3bfc3bfc3bfc3bfc3bf711168058671125271\
        13747114622e",
    "8003636e756d70792e636f72652e6d756c746961727261790a5f7265636f6e7374727563740a7100636e75\
        6d70790a6e6461727261790a71014b008571024301627103877104527105284b014b024b03867106636e75\
        6d70790a64747970650a7107580200000069387108898887710952710a284b0358010000003c710b4e4e4e\
        4affffffff4affffffff4b0074710c62894330000000000000000001000000000000000200000000000000\
        03000000000000000200000000000000ffffffffffffffff710d74710e622e",
    "800495ba000000000000008c156e756d70792e636f72652e6d756c74696172726179948c0c5f7265636f6e\
        7374727563749493948c056e756d7079948c076e6461727261799493944b0085944301629487945294284b\
        014b024b03869468038c0564747970659493948c02693894898887945294284b038c013c944e4e4e4affff\
        ffff4affffffff4b0074946289433000000000000000000100000000000000020000000000000003000000\
        000000000200000000000000ffffffffffffffff947494622e",
    "800595a5000000000000008c126e756d70792e636f72652e6e756d65726963948c0b5f66726f6d62756666\
        65729493942896300000000000000000000000000000000100000000000000020000000000000003000000\
        000000000200000000000000ffffffffffffffff948c056e756d7079948c0564747970659493948c026938\
        94898887945294284b038c013c944e4e4e4affffffff4affffffff4b007494624b024b0386948c01439474\
        9452942e",
];

const COLUMNS: &[&str] = &[
    "8002636e756d70792e636f72652e6d756c746961727261790a5f7265636f6e7374727563740a7100636e75\
        6d70790a6e6461727261790a71014b00857102635f636f646563730a656e636f64650a7103580100000062\
        710458060000006c6174696e317105867106527107877108527109284b014b024b0386710a636e756d7079\
        0a64747970650a710b58020000006634710c898887710d52710e284b0358010000003c710f4e4e4e4affff\
        ffff4affffffff4b0074711062886803581c0000000000c3803f0000c28040000000400000c2a040000040\
        400000c3804071116805867112527113747114622e",
    "8005958d000000000000008c126e756d70792e636f72652e6e756d65726963948c0b5f66726f6d62756666\
        6572949394289618000000000000000000c03f00008040000000400000a040000040400000c040948c056e\
        756d7079948c0564747970659493948c02663494898887945294284b038c013c944e4e4e4affffffff4aff\
        ffffff4b007494624b024b0386948c014694749452942e",
];

const MIXED: &[&str] =
    &["8004955f010000000000005d94288c156e756d70792e636f72652e6d756c74696172726179948c06736361\
        6c61729493948c056e756d7079948c0564747970659493948c02693894898887945294284b038c013c944e\
        4e4e4affffffff4affffffff4b007494624308fdffffffffffffff9486945294680368068c026638948988\
        87945294284b03680a4e4e4e4affffffff4affffffff4b007494624308000000000000e03f948694529468\
        018c0c5f7265636f6e73747275637494939468048c076e6461727261799493944b00859443016294879452\
        94284b014b02859468068c02693494898887945294284b03680a4e4e4e4affffffff4affffffff4b007494\
        62894308010000000200000094749462681768194b008594681b87945294284b014b018594681189430800\
        0000000000084094749462680368068c02753194898887945294284b038c017c944e4e4e4affffffff4aff\
        ffffff4b007494624301c89486945294652e"];

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn all() -> Vec<Vec<u8>> {
    [PLAIN, TABLE, ROWS, COLUMNS, MIXED].concat().into_iter().map(bytes).collect()
}

/// The value as Python would show it.
fn show(pickle: &Pickle<'_>, value: &Value<'_>) -> String {
    let members = |ids: &[Id]| {
        let members: Vec<String> = ids.iter().map(|&id| show(pickle, pickle.get(id))).collect();
        members.join(" ")
    };
    match value {
        Value::Nothing => "None".to_owned(),
        Value::Bool(x) => x.to_string(),
        Value::Int(x) => x.to_string(),
        Value::Float(x) => format!("{x:?}"),
        Value::Text(x) => format!("{x:?}"),
        Value::Bytes(x) => format!("{x:?}"),
        Value::List(ids) => format!("[{}]", members(ids)),
        Value::Tuple(ids) => format!("({})", members(ids)),
        Value::Dict(pairs) => {
            let flat: Vec<Id> = pairs.iter().flat_map(|&(key, value)| [key, value]).collect();
            format!("{{{}}}", members(&flat))
        }
        Value::Array(array) => format!("{:?}{:?}", array.shape, pickle.numbers(array)),
        Value::Type(_) | Value::Global(_) => panic!("no data"),
    }
}

fn shown(input: &[u8]) -> String {
    let pickle = read(input).unwrap();
    show(&pickle, pickle.root())
}

fn refusal(input: &[u8]) -> String {
    read(input).unwrap_err()
}

#[test]
fn plain_values_of_all_protocols() {
    for hex in PLAIN {
        assert_eq!(
            shown(&bytes(hex)),
            "{\"a\" [1 -2 300 70000 1099511627776 -1099511627776 1.5 None true false] \
             \"b\" (\"x\" \"é\" [0, 255] ()) \"c\" (1) \"d\" (1 2) \"e\" (1 2 3)}"
        );
    }
}

#[test]
fn numbers_and_arrays_of_numpy() {
    for hex in TABLE {
        let value = f64::from(8.5926f32);
        assert_eq!(shown(&bytes(hex)), format!("{{\"0000a\" {value:?} \"00010\" -1.25}}"));
    }
    for hex in ROWS {
        assert_eq!(shown(&bytes(hex)), "[2, 3][0.0, 1.0, 2.0, 3.0, 2.0, -1.0]");
    }
    for hex in COLUMNS {
        assert_eq!(shown(&bytes(hex)), "[2, 3][1.5, 2.0, 3.0, 4.0, 5.0, 6.0]");
    }
    assert_eq!(shown(&bytes(MIXED[0])), "[-3.0 0.5 [2][1.0, 2.0] [1][3.0] 200.0]");
    // NumPy 2 has the same functions in another module.
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let new = TABLE[0].replace(&hex("numpy.core.multiarray"), &hex("numpy._core.multiarray"));
    assert_ne!(new, TABLE[0]);
    assert_eq!(shown(&bytes(&new)), shown(&bytes(TABLE[0])));
}

#[test]
fn everything_that_could_run_is_refused_by_name() {
    let call = |name: &str| [b"\x80\x02c", name.as_bytes(), b"\nX\x02\0\0\0ls\x85R."].concat();
    for name in ["os\nsystem", "posix\nsystem", "builtins\neval", "numpy\nload", "copyreg\n_rec"] {
        let message = refusal(&call(name));
        assert!(message.contains(&name.replace('\n', ".")), "{message}");
        assert!(message.contains("refused"), "{message}");
    }
    let modern = refusal(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.");
    assert!(modern.contains("`os.system`"), "{modern}");
    // Names cannot send instructions to the terminal.
    let escape = refusal(b"\x80\x02c\x1b[2Jos\nsystem\n.");
    assert!(!escape.contains('\x1b') && escape.contains("u{1b}"), "{escape}");
    // Instructions that make objects: NEWOBJ, INST, OBJ, persistent names, extensions.
    for code in [0x81, 0x92, b'i', b'o', b'P', b'Q', 0x82, 0x97] {
        let message = refusal(&[0x80, 2, b')', b')', code, b'.']);
        assert!(message.contains(&format!("{code:#04x}")), "{message}");
    }
    // Admitted names cannot be combined at will.
    let array = refusal(b"\x80\x02cnumpy\nndarray\n)R.");
    assert!(array.contains("refused"), "{array}");
    let text = refusal(b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0rot\x86R.");
    assert!(text.contains("unknown encoding"), "{text}");
    assert!(refusal(b"(lp0\n.").contains("protocol 2 to 5"));
    assert!(refusal(b"\x80\x06N.").contains("protocol 2 to 5"));
    assert!(refusal(b"").contains("protocol 2 to 5"));
}

#[test]
fn lists_that_hold_themselves_are_no_trap() {
    let pickle = read(b"\x80\x02]q\0h\0a.").unwrap();
    assert!(matches!(pickle.root(), Value::List(members) if members.len() == 1));
    // A hundred lists, each twice in the next: 2^100 leaves, if anybody wrote them out.
    let mut laughs = b"\x80\x02]".to_vec();
    for _ in 0..100 {
        laughs.extend(b"q\0]h\0ah\0a");
    }
    laughs.push(b'.');
    assert!(matches!(read(&laughs).unwrap().root(), Value::List(members) if members.len() == 2));
}

#[test]
fn memory_is_bounded() {
    let refused = |middle: &[u8], times: usize| {
        let mut input = b"\x80\x02".to_vec();
        for _ in 0..times {
            input.extend(middle);
        }
        input.push(b'.');
        refusal(&input)
    };
    for middle in [&b"N"[..], b"(", b"]"] {
        assert!(refused(middle, MOST_KEPT + 1).contains("too many values"));
    }
    // One megabyte of text, encoded a hundred times.
    let mut input = b"\x80\x02X\0\0\x10\0".to_vec();
    input.extend(vec![b'a'; 1 << 20]);
    input.extend(b"X\x06\0\0\0latin1\x86q\0");
    for _ in 0..100 {
        input.extend(b"c_codecs\nencode\nh\0R");
    }
    input.push(b'.');
    assert!(refusal(&input).contains("too many encoded bytes"));
    let long = vec![0x80; LONGEST + 1];
    assert!(read(&[&[0x80, 2][..], &long].concat()).unwrap_err().contains("more than"));
    // Lengths that nothing backs.
    assert!(refusal(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f").contains("cut off"));
    assert!(refusal(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff").contains("cut off"));
}

#[test]
fn arrays_must_fit_their_data() {
    let rows = bytes(ROWS[0]);
    // The shape is the tuple (2, 3): K\x02 K\x03 \x86.
    let place = rows.windows(5).position(|five| five == b"K\x02K\x03\x86").unwrap();
    for shape in [b"K\x02K\x04\x86", b"K\x00K\x03\x86", b"NK\x03N\x86"] {
        let mut wrong = rows.clone();
        wrong[place..place + 5].copy_from_slice(shape);
        assert!(read(&wrong).is_err());
    }
    let mut swapped = rows.clone();
    let order = rows.windows(6).position(|six| six == b"X\x01\0\0\0<").unwrap() + 5;
    swapped[order] = b'>';
    assert!(refusal(&swapped).contains("little-endian"));
    let place = rows.windows(2).position(|two| two == b"i8").unwrap();
    let mut complex = rows;
    complex[place..place + 2].copy_from_slice(b"O8");
    assert!(refusal(&complex).contains("`O8`"));
}

#[test]
fn no_damage_makes_it_panic() {
    for whole in all() {
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        for place in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[place] = value;
                if let Ok(pickle) = read(&changed) {
                    for value in &pickle.values {
                        if let Value::Array(array) = value {
                            pickle.numbers(array);
                        }
                    }
                }
            }
        }
    }
}
