//! The fuzz targets' own functions (`fuzz/entries.rs`) in bounded runs: random bytes, and the recorded webhooks and the corpus in
//! thousands of broken forms. The same on every run; `FUZZ_SEED=n` tries others.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/entries.rs"]
mod entries;

/// Broken forms of each file, and random inputs.
const ROUNDS: u64 = 400;

/// xorshift64*: any seed but 0, always the same.
struct Chance(u64);

impl Chance {
    fn new(salt: u64) -> Self {
        let seed = std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1_u64);
        Self((seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % n.max(1)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// Pieces that parsers stumble over.
const PIECES: &[&str] = &[
    "null",
    "\"\"",
    "[]",
    "{}",
    "-1",
    "1e999",
    "true",
    "\\u0000",
    "\u{feff}",
    "\"event\":",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "|",
    "'",
    " is ",
    " in ",
    "default(",
    "[[[[",
    "}",
    "\r\n",
    "\u{202e}",
    "9999999999999999999999",
    "\"2026-13-45T99:99:99Z\"",
];

/// One broken form of a text.
fn broken(text: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let to = at + chance.below(bytes.len() - at + 1);
        match chance.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let piece = PIECES[chance.below(PIECES.len())].bytes();
                bytes.splice(at..to.min(at + 8), piece);
            }
            5 => {
                let from = chance.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let n = chance.below(16);
                let noise = chance.bytes(n);
                bytes.splice(at..at, noise);
            }
        }
        bytes.truncate(20_000);
    }
    bytes
}

/// The files of a folder whose names begin so, in order.
fn files(folder: &str, prefix: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    paths.sort();
    assert!(paths.len() >= 4, "{folder}: {paths:?}");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Feeds an entry; says which input it was that broke it.
fn feed(entry: fn(&[u8]), seeds: &[Vec<u8>], salt: u64) {
    let tried = |bytes: &[u8]| {
        let outcome = std::panic::catch_unwind(|| entry(bytes));
        assert!(outcome.is_ok(), "broken by {:?}", String::from_utf8_lossy(bytes));
    };
    let mut chance = Chance::new(salt);
    for (n, seed) in seeds.iter().enumerate() {
        tried(seed);
        for _ in 0..ROUNDS {
            let other = &seeds[(n + 1 + chance.below(seeds.len())) % seeds.len()];
            tried(&broken(seed, other, &mut chance));
        }
    }
    for _ in 0..ROUNDS {
        let n = chance.below(300);
        tried(&chance.bytes(n));
    }
}

#[test]
fn no_delivery_breaks_the_webhook_parser() {
    let mut seeds = files("tests/golden/unipile", "webhook_");
    seeds.extend(files("fuzz/corpus/webhook", ""));
    feed(entries::webhook, &seeds, 1);
}

#[test]
fn no_text_breaks_the_templates() {
    feed(entries::template, &files("fuzz/corpus/template", ""), 2);
}
