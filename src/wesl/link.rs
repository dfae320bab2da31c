//! From an entry point to one text with all that it reaches.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::module::{Declaration, Module, What};
use super::{Choice, Error, Instance, Package, Result};

/// A kernel as WGSL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Linked {
    pub text: String,
    /// What its functions use, in order of their numbers.
    pub bindings: Vec<Binding>,
    /// Names of its pipeline constants.
    pub overrides: Vec<String>,
    /// The modules that something is of, in order of their paths.
    pub modules: Vec<String>,
}

/// A binding in group 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Binding {
    pub number: u32,
    pub writes: bool,
    pub name: String,
}

impl Package {
    /// Links the entry points of a module, with all that they use, under a choice.
    pub fn link(&self, entry: &str, choice: &Choice) -> Result<Linked> {
        let mut linker =
            Linker { package: self, choice, units: Vec::new(), by_path: HashMap::new(), unknown: Vec::new() };
        let root = linker.unit(entry).ok_or_else(|| Error::of(entry, "", 0, "no such module"))??;
        let module = linker.units[root].module;
        for (index, declaration) in module.declarations.iter().enumerate() {
            let holds = declaration.condition.holds(&choice.features);
            if holds && declaration.what == (What::Function { is_entry: true }) {
                linker.reach(root, index)?;
            }
        }
        linker.finish()
    }
}

/// An instance that something is reached of.
struct Unit<'p> {
    path: String,
    module: &'p Module,
    instance: Instance,
    /// What names mean in it.
    scope: HashMap<&'p str, Meaning<'p>>,
    /// What is reached, with what to write for each reference that is called otherwise than in the file.
    reached: BTreeMap<usize, Vec<(usize, String)>>,
}

#[derive(Clone, Copy)]
enum Meaning<'p> {
    Declared(usize),
    Imported(&'p [String]),
}

struct Linker<'p> {
    package: &'p Package,
    choice: &'p Choice,
    units: Vec<Unit<'p>>,
    by_path: HashMap<String, usize>,
    /// Names that a module neither declares nor imports, and where they stand.
    unknown: Vec<(usize, usize, &'p str)>,
}

impl<'p> Linker<'p> {
    /// The instance that a path means, if there is one.
    fn unit(&mut self, path: &str) -> Option<Result<usize>> {
        if let Some(&unit) = self.by_path.get(path) {
            return Some(Ok(unit));
        }
        let instance = self.choice.modules.get(path).cloned().unwrap_or_else(|| path.into());
        let module = self.package.modules.get(&instance.module)?;
        // What stands for several paths is there once.
        if let Some(unit) = self.units.iter().position(|unit| unit.instance == instance) {
            self.by_path.insert(path.to_owned(), unit);
            return Some(Ok(unit));
        }
        Some(self.add(path, module, instance))
    }

    fn add(&mut self, path: &str, module: &'p Module, instance: Instance) -> Result<usize> {
        let features = &self.choice.features;
        let imports = module.imports.iter().filter(|import| import.condition.holds(features));
        let imports = imports.map(|import| (&import.name[..], Meaning::Imported(&import.path), import.at));
        let declared = module.declarations.iter().enumerate();
        let declared = declared.filter(|(_, declaration)| declaration.condition.holds(features));
        let declared = declared.map(|(index, one)| (&one.name[..], Meaning::Declared(index), one.text.start));
        let mut scope = HashMap::new();
        for (name, meaning, at) in imports.chain(declared) {
            if scope.insert(name, meaning).is_some() {
                return Err(Error::of(&module.path, &module.text, at, &format!("{name} is there twice")));
            }
        }
        self.by_path.insert(path.to_owned(), self.units.len());
        self.units.push(Unit { path: path.to_owned(), module, instance, scope, reached: BTreeMap::new() });
        Ok(self.units.len() - 1)
    }

    fn reach(&mut self, unit: usize, index: usize) -> Result<()> {
        let reached = &mut self.units[unit].reached;
        if reached.contains_key(&index) {
            return Ok(());
        }
        reached.insert(index, Vec::new());
        let module = self.units[unit].module;
        let declaration = &module.declarations[index];
        let features = &self.choice.features;
        let mut renamed = Vec::new();
        for (place, reference) in declaration.references.iter().enumerate() {
            let cut = declaration.cuts.iter().any(|(range, condition)| {
                range.contains(&reference.text.start) && !condition.holds(features)
            });
            if cut {
                continue;
            }
            let Some(path) = self.absolute(unit, &reference.path) else {
                // What is built in, or a member, or forgotten: names of all modules tell.
                if let [name] = &reference.path[..]
                    && !module.locals.contains(name)
                {
                    self.unknown.push((unit, reference.text.start, name));
                }
                continue;
            };
            let (of, index) = match path {
                Ok(index) => (unit, index),
                Err(path) => self
                    .find(&path)
                    .map_err(|what| Error::of(&module.path, &module.text, reference.text.start, &what))?,
            };
            self.reach(of, index)?;
            let name = self.units[of].called(index);
            if reference.path.len() > 1 || reference.path[0] != name {
                renamed.push((place, name));
            }
        }
        self.units[unit].reached.insert(index, renamed);
        Ok(())
    }

    /// What a name in a unit means: a declaration of its own, a path from the root, or nothing that a module declares.
    fn absolute(&self, unit: usize, path: &[String]) -> Option<std::result::Result<usize, Vec<String>>> {
        let unit = &self.units[unit];
        let (first, rest) = path.split_first()?;
        let mut full = match unit.scope.get(&first[..]) {
            Some(Meaning::Declared(index)) if rest.is_empty() => return Some(Ok(*index)),
            Some(Meaning::Imported(import)) => import.to_vec(),
            _ if rest.len() > 1 => unit.module.root(first)?,
            _ => return None,
        };
        full.extend_from_slice(rest);
        let module = full[..full.len() - 1].join("/");
        if let Some((_, meant)) = unit.instance.imports.iter().find(|(named, _)| *named == module) {
            let item = full.pop()?;
            full = meant.split('/').map(str::to_owned).collect();
            full.push(item);
        }
        Some(Err(full))
    }

    fn find(&mut self, path: &[String]) -> std::result::Result<(usize, usize), String> {
        let (item, module) = path.split_last().ok_or("a path of nothing")?;
        let module = module.join("/");
        let unit = match self.unit(&module) {
            Some(unit) => unit.map_err(|error| error.to_string())?,
            None => return Err(format!("there is no module {module}, of which {item} is wanted")),
        };
        match self.units[unit].scope.get(&item[..]) {
            Some(Meaning::Declared(index)) => Ok((unit, *index)),
            _ => Err(format!("{} declares no {item}", self.units[unit].module.path)),
        }
    }

    fn finish(self) -> Result<Linked> {
        let mut linked = Linked::default();
        let mut names = HashSet::new();
        for unit in &self.units {
            if unit.reached.is_empty() {
                continue;
            }
            linked.modules.push(unit.module.path.clone());
            linked.text += &format!("// {}\n\n", unit.path);
            for (&index, renamed) in &unit.reached {
                let declaration = &unit.module.declarations[index];
                let name = unit.called(index);
                let error = |what: &str| {
                    Error::of(&unit.module.path, &unit.module.text, declaration.text.start, what)
                };
                unit.write(declaration, &name, renamed, self.choice, &mut linked.text);
                match &declaration.what {
                    What::Override => linked.overrides.push(name.clone()),
                    What::Variable { binding: Some(binding), writes } => {
                        let number = unit.number(&unit.module.text[binding.clone()]);
                        let number = number.ok_or_else(|| error("its binding is no number"))?;
                        linked.bindings.push(Binding { number, writes: *writes, name: name.clone() });
                    }
                    _ => {}
                }
                if !names.insert(name) {
                    return Err(error("another module declares that name, too"));
                }
            }
        }
        // In the linked text the name would be found; in the module alone it means nothing.
        if let Some(&(unit, at, name)) = self.unknown.iter().find(|(_, _, name)| names.contains(*name)) {
            let module = self.units[unit].module;
            return Err(Error::of(&module.path, &module.text, at, &format!("{name} is not imported")));
        }
        linked.bindings.sort();
        linked.modules.sort();
        linked.modules.dedup();
        Ok(linked)
    }
}

impl Unit<'_> {
    /// What a declaration is called in the linked text.
    fn called(&self, index: usize) -> String {
        let name = &self.module.declarations[index].name;
        match &self.instance.name {
            Some(of) => format!("{of}_{name}"),
            None => name.clone(),
        }
    }

    fn value(&self, constant: &str) -> Option<&str> {
        let (_, value) = self.instance.values.iter().find(|(name, _)| name == constant)?;
        Some(value)
    }

    /// A number, or the value of a constant.
    fn number(&self, text: &str) -> Option<u32> {
        self.value(text).unwrap_or(text).trim_end_matches(['u', 'i']).parse().ok()
    }

    /// Appends a declaration under its name, without what conditions leave out.
    fn write(
        &self,
        declaration: &Declaration,
        name: &str,
        renamed: &[(usize, String)],
        choice: &Choice,
        to: &mut String,
    ) {
        let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
        let cuts = declaration.cuts.iter().filter(|(_, condition)| !condition.holds(&choice.features));
        edits.extend(cuts.map(|(range, _)| (range.clone(), "")));
        edits.extend(
            renamed.iter().map(|(place, name)| (declaration.references[*place].text.clone(), &name[..])),
        );
        if name != declaration.name {
            edits.push((declaration.named.clone(), name));
        }
        if let (What::Constant(range), Some(value)) = (&declaration.what, self.value(&declaration.name)) {
            edits.push((range.clone(), value));
        }
        edits.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let text = &self.module.text;
        let mut at = declaration.text.start;
        for (range, by) in edits {
            // What lies within a cut is cut.
            if range.start >= at {
                to.push_str(&text[at..range.start]);
                to.push_str(by);
                at = range.end;
            }
        }
        to.push_str(&text[at..declaration.text.end]);
        to.push_str("\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "
        import package::a::{twice as double, SIZE};
        import package::tensors::x::at as x_at;
        import package::tensors::y;
        override STEP: u32 = 1u;
        override UNUSED: u32 = 2u;
        fn helper() -> u32 { return 1u; }
        @compute @workgroup_size(SIZE) fn main() { let v = double(x_at(STEP)); y::put(v); }
        @if(more) @compute @workgroup_size(1) fn other() { helper(); }
    ";
    const A: &str = "
        // What another module calls double.
        fn twice(v: f32) -> f32 { @if(fast) return v + v; @else { return 2.0 * v; } }
        const SIZE: u32 = 64u;
        fn dead() { nowhere::to_be_found(); }
    ";
    const INPUT: &str = "
        const SLOT: u32 = 0u;
        @if(shared) @group(0) @binding(SLOT) var<storage, read_write> data: array<f32>;
        @else @group(0) @binding(SLOT) var<storage, read> data: array<f32>;
        fn at(i: u32) -> f32 { return data[i]; }
    ";
    const OUTPUT: &str = "
        import package::tensors::x;
        const SLOT: u32 = 1u;
        @group(0) @binding(SLOT) var<storage, read_write> data: array<f32>;
        fn put(v: f32) { data[0u] = v + x::at(0u); }
    ";

    fn package(files: &[(&str, &str)]) -> Package {
        Package::parse(files.iter().copied()).unwrap()
    }

    fn whole() -> Package {
        package(&[("entry", ENTRY), ("a", A), ("input", INPUT), ("output", OUTPUT)])
    }

    fn choice(features: &[&str]) -> Choice {
        let mut choice = Choice::default();
        features.iter().for_each(|feature| choice.feature(feature, true));
        choice.replace("tensors/x", Instance::from("input").named("x").with("SLOT", "7u"));
        choice.replace("tensors/y", Instance::from("output").named("y").with("SLOT", "8u"));
        choice
    }

    fn names(text: &str) -> Vec<String> {
        let module =
            naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
        let mut names: Vec<_> = module.functions.iter().filter_map(|(_, f)| f.name.clone()).collect();
        names.extend(module.global_variables.iter().filter_map(|(_, v)| v.name.clone()));
        names.extend(module.entry_points.iter().map(|entry| entry.name.clone()));
        names.sort();
        names
    }

    #[test]
    fn modules_of_another_package_import_ours_and_their_own() {
        let mut package = whole();
        let theirs = "import wgnorm::a::twice; import package::b::once;
            @compute @workgroup_size(1) fn main() { let v = once(twice(1.0)) + package::b::once(2.0); }";
        package.add("theirs", "main", theirs).unwrap();
        package.add("theirs", "b", "fn once(v: f32) -> f32 { return v; }").unwrap();
        let linked = package.link("theirs/main", &choice(&[])).unwrap();
        assert_eq!(names(&linked.text), ["main", "once", "twice"]);
        assert_eq!(package.constant("a", "SIZE"), Some(64));
        let error = package.add("theirs", "c", "import elsewhere::a;").unwrap_err();
        assert!(error.to_string().contains("wgnorm::"), "{error}");
    }

    #[test]
    fn what_is_reached_is_there_once_under_its_name() {
        let linked = whole().link("entry", &choice(&[])).unwrap();
        assert_eq!(names(&linked.text), ["main", "twice", "x_at", "x_data", "y_data", "y_put"]);
        let bindings: Vec<_> = linked.bindings.iter().map(|b| (b.number, b.writes, &b.name[..])).collect();
        assert_eq!(bindings, [(7, false, "x_data"), (8, true, "y_data")]);
        assert_eq!(
            (linked.overrides, linked.modules),
            (vec!["STEP".into()], ["a", "entry", "input", "output"].map(String::from).into())
        );
        assert!(["dead", "import", "@if", "@else"].iter().all(|word| !linked.text.contains(word)));
    }

    #[test]
    fn conditions_choose_declarations_and_statements() {
        let plain = whole().link("entry", &choice(&[])).unwrap();
        assert!(plain.text.contains("2.0 * v") && !plain.text.contains("v + v"));
        let chosen = whole().link("entry", &choice(&["fast", "shared", "more"])).unwrap();
        assert!(chosen.text.contains("return v + v;") && !chosen.text.contains("2.0 * v"));
        assert!(chosen.bindings.iter().all(|binding| binding.writes));
        assert!(
            names(&chosen.text).contains(&"other".to_owned())
                && names(&chosen.text).contains(&"helper".to_owned())
        );
    }

    #[test]
    fn an_instance_may_import_what_another_has() {
        let over = "
            import package::output::data;
            fn at(i: u32) -> f32 { return data[i]; }
        ";
        let package = package(&[("entry", ENTRY), ("a", A), ("over", over), ("output", OUTPUT)]);
        let mut choice = choice(&[]);
        choice.replace("tensors/x", Instance::from("over").named("x").importing("output", "tensors/y"));
        let linked = package.link("entry", &choice).unwrap();
        assert_eq!(names(&linked.text), ["main", "twice", "x_at", "y_data", "y_put"]);
        assert_eq!(linked.bindings.len(), 1);
    }

    #[test]
    fn what_is_not_imported_is_not_found_by_chance() {
        let entry = "import package::a::f; @compute @workgroup_size(1) fn main() { let v = f(g(1.0)); }";
        let a = "import package::b::g; fn f(v: f32) -> f32 { return g(v); }";
        let package = package(&[("entry", entry), ("a", a), ("b", "fn g(v: f32) -> f32 { return v; }")]);
        let error = package.link("entry", &Choice::default()).unwrap_err();
        assert_eq!(error.to_string(), "entry, line 1: g is not imported");
    }

    #[test]
    fn what_stands_for_two_paths_is_there_once() {
        let entry = "
            import package::one::{f, C}; import package::other::g;
            @compute @workgroup_size(C) fn main() { f(); g(); }
        ";
        let both = "const C: u32 = 1u; fn f() { g(); } fn g() {}";
        let mut choice = Choice::default();
        choice.replace("one", "both");
        choice.replace("other", "both");
        let linked = package(&[("entry", entry), ("both", both)]).link("entry", &choice).unwrap();
        assert_eq!(names(&linked.text), ["f", "g", "main"]);
    }

    #[test]
    fn faults_say_where_they_are() {
        let fault = |entry: &str, other: &str| {
            let files = [("entry", entry), ("other", other)];
            let linked = Package::parse(files).and_then(|package| package.link("entry", &Choice::default()));
            linked.map(|linked| linked.text).unwrap_err().to_string()
        };
        let main = |body: &str| {
            format!("import package::other::f;\n@compute @workgroup_size(1)\nfn main() {{ {body} }}")
        };
        assert_eq!(fault(&main("f();"), ""), "entry, line 3: other declares no f");
        assert_eq!(
            fault("import package::none::f;\n@compute @workgroup_size(1) fn main() { f(); }", ""),
            "entry, line 2: there is no module none, of which f is wanted"
        );
        let hidden = "entry, line 3: a name of the module is given to something else";
        assert_eq!(fault(&main("let f = 1u;"), "fn f() {}"), hidden);
        assert_eq!(fault(&main("for (var f = 0u; f < 1u; f++) {}"), "fn f() {}"), hidden);
        let twice = "other, line 1: another module declares that name, too";
        assert_eq!(fault(&format!("{}\nfn g() {{}}", main("f(); g();")), "fn f() { g(); } fn g() {}"), twice);
        assert_eq!(fault("fn a() {}\nfn a() {}", ""), "entry, line 2: a is there twice");
        assert_eq!(fault("fn a() {", ""), "entry, line 1: is not closed");
        assert_eq!(fault("@else fn a() {}", ""), "entry, line 1: nothing that this is the other of");
        assert_eq!(fault("import super::a;", ""), "entry, line 1: imports begin with package:: or wgnorm::");
        assert_eq!(fault("enable f16;", ""), "entry, line 1: is no declaration that is known here");
    }
}
