//! Inputs: the corpus, and mutations of it.

use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

/// Where nobody says how many.
const CASES: u32 = 256;

/// What readers stumble over.
const TOKENS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "\u{feff}",
    "\0",
    "*",
    "**",
    "/",
    "..",
    "%2f",
    "\r\n",
    "ecr-operator.dev/owner-uid",
    "99999999999999999999",
];

#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, &'static str),
    Remove(Index, Index),
    Repeat(Index, Index, u8),
    Nest(u16),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let range = |from: &Index, length: &Index| {
            let from = from.index(bytes.len().max(1)).min(bytes.len());
            from..(from + length.index(32)).min(bytes.len())
        };
        match self {
            Self::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Set(..) => {}
            Self::Insert(at, token) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, token.bytes());
            }
            Self::Remove(from, length) => drop(bytes.drain(range(from, length))),
            Self::Repeat(from, length, times) => {
                let range = range(from, length);
                let part = bytes[range.clone()].repeat(usize::from(*times));
                bytes.splice(range.start..range.start, part);
            }
            Self::Nest(depth) => {
                let depth = usize::from(*depth);
                *bytes = [b"[".repeat(depth).as_slice(), bytes, b"]".repeat(depth).as_slice()].concat();
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (index(), prop::sample::select(&TOKENS[..])).prop_map(|(at, token)| Mutation::Insert(at, token)),
        3 => (index(), index()).prop_map(|(from, length)| Mutation::Remove(from, length)),
        2 => (index(), index(), 1..20_u8).prop_map(|(from, length, times)| Mutation::Repeat(from, length, times)),
        1 => (1..2_000_u16).prop_map(Mutation::Nest),
    ]
}

/// Tries `target` with every input of a corpus, and with mutations of them.
pub fn fuzz(corpus: &str, target: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let mut files: Vec<PathBuf> =
        directory.join("corpus").join(corpus).read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let inputs: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!inputs.is_empty());
    for input in &inputs {
        target(input);
    }
    let cases = std::env::var("FUZZ_CASES").map_or(CASES, |cases| cases.parse().expect("FUZZ_CASES is a number"));
    let kept = directory.join("regressions").join(format!("{corpus}.txt"));
    let persistence = FileFailurePersistence::Direct(Box::leak(kept.to_string_lossy().into_owned().into_boxed_str()));
    let config = Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    let mutated = (prop::sample::select(inputs), vec(mutation(), 0..6)).prop_map(|(mut bytes, mutations)| {
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        bytes
    });
    let anything = prop_oneof![8 => mutated, 1 => vec(any::<u8>(), 0..200)];
    let tried = TestRunner::new(config).run(&anything, |bytes| {
        target(&bytes);
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}
