//! A document that holds others, as the lists of Kubernetes do.

use std::collections::HashMap;

use serde_json::Value;

use super::{Document, Positions, Spot};

impl Document {
    /// The items of the list at `key`, each as a document of its own, whose places are those in the file. None where no
    /// list is there.
    #[must_use]
    pub fn split(mut self, key: &str) -> Vec<Self> {
        let Some(Value::Array(items)) = self.value.get_mut(key).map(Value::take) else { return Vec::new() };
        let mut positions: Vec<HashMap<String, Spot>> = vec![HashMap::new(); items.len()];
        for (path, spot) in self.positions.0 {
            let below = path.strip_prefix(key).and_then(|rest| rest.strip_prefix('['));
            let Some((index, rest)) = below.and_then(|rest| rest.split_once(']')) else { continue };
            let of_item = index.parse().ok().and_then(|index: usize| positions.get_mut(index));
            if let Some(of_item) = of_item {
                of_item.insert(rest.strip_prefix('.').unwrap_or(rest).to_owned(), spot);
            }
        }
        let document = |(value, spots): (Value, HashMap<String, Spot>)| {
            let line = spots.get("").map_or(self.line, |spot| spot.value.0);
            Self { line, value, positions: Positions(spots) }
        };
        items.into_iter().zip(positions).map(document).collect()
    }
}
