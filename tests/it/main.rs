mod fuzz_smoke;

fn main() {}
