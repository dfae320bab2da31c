//! The pipeline cache on disk: kept, found again, refused where it is damaged, and never in the way of a result.

use std::path::{Path, PathBuf};

use wgnorm::tuning::PipelineCacheState;
use wgnorm::{BatchNormOptions, Context, ContextOptions, Error};

use crate::support::*;

/// A directory of a test's own that does not exist yet.
fn scratch(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pipeline_cache").join(test);
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

fn open(directory: &Path) -> Context {
    let options = ContextOptions::default().pipeline_cache(directory.to_owned());
    kept(pollster::block_on(Context::headless_with(&options)).unwrap())
}

/// y of an inference pass.
fn result(context: &Context) -> Vec<u32> {
    let inputs = Inputs::new(3, &[2, 3, 5, 4]);
    let layer = inputs.layer(context, BatchNormOptions::pytorch()).freeze();
    let y = context.block_on(layer.infer(&inputs.upload_x(context))).unwrap();
    bits(&download(context, &y))
}

/// The file that a context has written; `None` if the adapter has no pipeline caches, which is said then.
fn saved(context: &Context) -> Option<PathBuf> {
    let supported = context.device().features().contains(wgpu::Features::PIPELINE_CACHE);
    match context.pipeline_cache() {
        PipelineCacheState::Unsupported { reason } => {
            assert!(!supported && !reason.is_empty());
            assert_eq!(context.save_pipeline_cache(), Ok(None));
            None
        }
        PipelineCacheState::New { path }
        | PipelineCacheState::Loaded { path, .. }
        | PipelineCacheState::Refused { path, .. } => {
            assert!(supported);
            assert!(context.save_pipeline_cache().unwrap().is_some());
            Some(path.clone())
        }
        other => panic!("{other}"),
    }
}

/// The file's checksum.
fn fnv_1a(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[test]
fn what_one_context_saves_the_next_one_loads() {
    let directory = scratch("kept");
    let first = open(&directory);
    assert!(!directory.exists(), "nothing is written unasked");
    let y = result(&first);
    let Some(path) = saved(&first) else { return };
    assert!(matches!(first.pipeline_cache(), PipelineCacheState::New { .. }));
    assert_eq!(path.parent(), Some(&*directory));

    let second = open(&directory);
    assert!(
        matches!(second.pipeline_cache(), PipelineCacheState::Loaded { bytes: 1.., .. }),
        "{}",
        second.pipeline_cache()
    );
    assert_eq!(result(&second), y);
    // Again, over the file that is there; nothing else is left in the directory.
    assert_eq!(saved(&second), Some(path));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn a_file_that_cannot_be_used_is_no_error_and_is_replaced() {
    let directory = scratch("damaged");
    let context = open(&directory);
    let y = result(&context);
    let Some(path) = saved(&context) else { return };
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    // A file that is whole, as far as this crate can tell, with data that is not wgpu's.
    let mut foreign = whole[..whole.len() - 8].to_vec();
    let at = foreign.windows(8).position(|window| window == b"WGPUPLCH").unwrap();
    foreign[at] = b'X';
    foreign.extend(fnv_1a(&foreign).to_le_bytes());
    for wrong in [Vec::new(), b"hello".to_vec(), whole[..whole.len() / 2].to_vec(), flipped, foreign] {
        std::fs::write(&path, &wrong).unwrap();
        let context = open(&directory);
        match context.pipeline_cache() {
            PipelineCacheState::Refused { reason, .. } => assert!(!reason.is_empty()),
            other => panic!("{} bytes: {other}", wrong.len()),
        }
        assert_eq!(result(&context), y);
        assert_eq!(saved(&context).as_ref(), Some(&path));
        assert!(matches!(open(&directory).pipeline_cache(), PipelineCacheState::Loaded { .. }));
    }
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_of_saving_alone() {
    let directory = scratch("no directory");
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    std::fs::write(&directory, "a file").unwrap();
    let context = open(&directory);
    result(&context);
    if matches!(context.pipeline_cache(), PipelineCacheState::Unsupported { .. }) {
        return;
    }
    refused!(context.save_pipeline_cache(), Error::File { path, .. } if path.starts_with(&directory));
    result(&context);
    std::fs::remove_file(&directory).unwrap();
}

#[test]
fn without_the_option_there_is_none() {
    let context = context();
    assert_eq!(context.pipeline_cache(), &PipelineCacheState::Off);
    assert_eq!(context.save_pipeline_cache(), Ok(None));
    assert!(!context.device().features().contains(wgpu::Features::PIPELINE_CACHE));
}

#[test]
fn a_device_of_the_application_needs_the_feature() {
    let directory = scratch("application");
    let options = ContextOptions::default().pipeline_cache(directory.clone());
    let (device, queue) = own_device(wgpu::Limits::default());
    let context = Context::from_wgpu_with(device, queue, &options).unwrap();
    assert!(matches!(context.pipeline_cache(), PipelineCacheState::Unsupported { .. }));
    assert_eq!(context.save_pipeline_cache(), Ok(None));
    let y = result(&context);
    assert!(!directory.exists());

    let with = open(&directory);
    let context = Context::from_wgpu_with(with.device().clone(), with.queue().clone(), &options).unwrap();
    assert_eq!(result(&context), y);
    assert_eq!(saved(&context).is_some(), directory.exists());
}
