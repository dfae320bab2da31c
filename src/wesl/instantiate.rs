//! A choice, as the modules that it makes: what imports from a path that others stand for imports from those, so that any tool of WESL can read it.

use super::module::{Import, Module};
use super::{Choice, Instance, Package};

impl Package {
    /// All modules under a choice, by their paths: those that nothing reaches too.
    pub(crate) fn instantiate(&self, choice: &Choice) -> Vec<(String, String)> {
        let plain =
            self.modules.values().map(|module| (module.path.clone(), Instance::from(&module.path[..])));
        let own = choice.modules.iter().filter(|(_, instance)| !instance.is_plain());
        let own = own.map(|(path, instance)| (path.clone(), instance.clone()));
        let all: std::collections::BTreeMap<_, _> = plain.chain(own).collect();
        let text = |(path, instance): (String, Instance)| {
            let module = self.modules.get(&instance.module)?;
            Some((path, self.text(module, &instance, choice)))
        };
        all.into_iter().filter_map(text).collect()
    }

    fn text(&self, module: &Module, instance: &Instance, choice: &Choice) -> String {
        let mut text = String::new();
        for import in module.imports.iter().filter(|import| import.condition.holds(&choice.features)) {
            text +=
                &format!("import package::{} as {};\n", self.meant(import, instance, choice), import.name);
        }
        for declaration in module.declarations.iter().filter(|one| one.condition.holds(&choice.features)) {
            let range = declaration.text.clone();
            let mut written = module.text[range.clone()].to_owned();
            let value = instance.values.iter().find(|(name, _)| *name == declaration.name);
            if let (Some(at), Some((_, value))) = (declaration.value(), value) {
                written.replace_range(at.start - range.start..at.end - range.start, value);
            }
            text += &format!("{written}\n");
        }
        text
    }

    /// The path of what an import means: an item of a module, or a module.
    fn meant(&self, import: &Import, instance: &Instance, choice: &Choice) -> String {
        let of_item = import.path[..import.path.len() - 1].join("/");
        let whole = import.path.join("/");
        let item = import.path.last().map(String::as_str).unwrap_or_default();
        match self.stands_for(&whole, instance, choice) {
            Some(module) => module.replace('/', "::"),
            None => {
                let module = self.stands_for(&of_item, instance, choice).unwrap_or(of_item);
                format!("{}::{item}", module.replace('/', "::"))
            }
        }
    }

    fn stands_for(&self, path: &str, instance: &Instance, choice: &Choice) -> Option<String> {
        let meant = instance.imports.iter().find(|(named, _)| named == path);
        let path = meant.map_or(path, |(_, meant)| meant);
        match choice.modules.get(path) {
            Some(chosen) if chosen.is_plain() => Some(chosen.module.clone()),
            Some(_) => Some(path.to_owned()),
            None => self.modules.contains_key(path).then(|| path.to_owned()),
        }
    }
}

impl Instance {
    /// Whether it is a module as it is.
    fn is_plain(&self) -> bool {
        self.name.is_none() && self.values.is_empty() && self.imports.is_empty()
    }
}
