//! How many files this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many files open as it may give itself: up to its hard limit. A container runtime that sets no
/// limit leaves a soft one of 1024, which is for programs that use select(). Returns the limit that holds now.
pub fn raise_open_files() -> u64 {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot have more than {soft} files open: {error}");
    }
    open_files()
}

/// How many files this process may have open.
pub fn open_files() -> u64 {
    // What every system allows at least.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
        assert_eq!(raise_open_files(), hard);
        assert_eq!(open_files(), hard);
    }
}
