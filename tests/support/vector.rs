//! A test vector of the format: a forged archive, its damage, and the outcome that a reader must
//! reach.

use serde_json::{Value, json};

use super::forge::{BLOCK, Block, Forge, Volume, sha};

pub struct Vector {
    pub name: &'static str,
    pub outcome: &'static str,
    pub why: &'static str,
    pub forge: Forge,
    /// The damage to the sealed archive.
    pub damage: Option<fn(&mut Vec<u8>)>,
}

pub fn volume(name: &str, size: u64, blocks: Vec<(u32, Block)>) -> Volume {
    Volume { name: name.into(), size, blocks }
}

pub fn data(byte: u8) -> Block {
    Block::Data(vec![byte; BLOCK as usize])
}

pub const BARE: &str = r#"{"Snapshots":[{"SnapshotId":"snap-1"}]}"#;

/// A small archive of one volume, from which most damaged vectors are made.
pub fn simple() -> Forge {
    Forge::new(
        BARE,
        vec![volume("snap-1", 8 << 20, vec![(0, data(b'A')), (1, data(b'B')), (3, Block::Zero)])],
    )
}

pub fn changed(change: impl FnOnce(&mut Forge)) -> Forge {
    let mut forge = simple();
    change(&mut forge);
    forge
}

pub fn ok(name: &'static str, why: &'static str, forge: Forge) -> Vector {
    Vector { name, outcome: "ok", why, forge, damage: None }
}

pub fn corrupt(name: &'static str, why: &'static str, forge: Forge) -> Vector {
    Vector { name, outcome: "corrupt", why, forge, damage: None }
}

pub fn unsupported(name: &'static str, why: &'static str, forge: Forge) -> Vector {
    Vector { name, outcome: "unsupported", why, forge, damage: None }
}

pub fn damaged(name: &'static str, why: &'static str, damage: fn(&mut Vec<u8>)) -> Vector {
    Vector { name, outcome: "corrupt", why, forge: simple(), damage: Some(damage) }
}

pub fn set_number(member: &'static str, value: u64) -> Box<dyn Fn(&mut Value)> {
    Box::new(move |manifest| manifest[member] = json!(value))
}

impl Vector {
    pub fn replaced(mut self, damage: fn(&mut Vec<u8>)) -> Self {
        self.damage = Some(damage);
        self
    }

    pub fn archive(&self) -> Vec<u8> {
        let mut archive = self.forge.build();
        if let Some(damage) = self.damage {
            damage(&mut archive);
        }
        archive
    }

    pub fn expectation(&self, archive: &[u8]) -> Value {
        let mut expectation = json!({"outcome": self.outcome, "why": self.why});
        if self.outcome == "ok" {
            let footer = find(archive, b"AMIBEND1") - 120;
            let hex =
                |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            expectation["root"] = json!(hex(&archive[footer + 32..footer + 64]));
            expectation["content_root"] = json!(hex(&archive[footer + 64..footer + 96]));
            expectation["image_json_sha256"] = json!(hex(&sha(&self.forge.image_json)));
            expectation["volumes"] = self.forge.volumes.iter().map(describe).collect();
        }
        expectation
    }
}

fn describe(volume: &Volume) -> Value {
    let runs = |matches: fn(&Block) -> bool| {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (block, _) in volume.blocks.iter().filter(|(_, block)| matches(block)) {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == *block => *count += 1,
                _ => runs.push((*block, 1)),
            }
        }
        json!(runs)
    };
    let mut description = json!({
        "name": volume.name,
        "size": volume.size,
        "data": runs(|block| matches!(block, Block::Data(_))),
        "zero": runs(|block| matches!(block, Block::Zero)),
        "fill": runs(|block| matches!(block, Block::Fill)),
    });
    if volume.size <= 1 << 30 {
        let mut raw = vec![0; volume.size as usize];
        for (block, state) in &volume.blocks {
            let start = (u64::from(*block) * BLOCK) as usize;
            if let Block::Data(data) = state {
                let len = data.len().min(raw.len() - start);
                raw[start..start + len].copy_from_slice(&data[..len]);
            }
        }
        description["sha256"] =
            json!(sha(&raw).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    description
}

pub fn find(bytes: &[u8], word: &[u8]) -> usize {
    let found =
        bytes.windows(word.len()).position(|found| found == word).expect("the word is there");
    if word.starts_with(b"AMIB") && word.len() == 5 { found - 8 } else { found }
}
