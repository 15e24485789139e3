//! Writes the seeds of every target to `corpus/` beside the manifest, where `cargo fuzz` looks for
//! them.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, _) in amistore_fuzz::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&corpus)?;
        for (number, seed) in amistore_fuzz::seeds(target).into_iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
