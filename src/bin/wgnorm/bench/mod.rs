//! bench
#[derive(clap::Args)]
pub struct Args {}
pub fn run(_: &Args) -> Result<crate::Outcome, crate::Refusal> {
    Ok(crate::Outcome::Passed)
}
