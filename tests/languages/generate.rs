//! Generates the bindings of Go and C, for the suite `languages` to hold those that are committed against.
//!
//! It is a part of the build script. As dependencies of the tests themselves the generators would change how crates are
//! built that they share with the engine, and have the engine compiled a second time.

use std::{fs, path::Path};

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};

/// Writes the bindings of the contract in `wit` to `out/c` and `out/go`.
pub fn bindings(wit: &Path, out: &Path) -> Result<(), String> {
    let c = wit_bindgen_c::Opts { no_object_file: true, ..Default::default() };
    generate(wit, &out.join("c"), c.build(), |text| text)?;
    let go = wit_bindgen_go::Opts {
        format: wit_bindgen_go::Format::False,
        pkg_name: Some("leasehold.dev/agent/internal/bindings".to_owned()),
        ..Default::default()
    };
    // The generator's own package is a part of the SDK, so that no agent needs a module of anybody else's.
    let own = |text: String| text.replace("go.bytecodealliance.org/pkg/wit/", "leasehold.dev/agent/internal/wit/");
    generate(wit, &out.join("go"), go.build(), own)
}

fn generate(
    wit: &Path,
    out: &Path,
    mut generator: Box<dyn WorldGenerator>,
    change: impl Fn(String) -> String,
) -> Result<(), String> {
    let mut contract = Resolve::default();
    let (package, _) = contract.push_dir(wit).map_err(|error| format!("{error:#}"))?;
    let world = contract.select_world(&[package], Some("agent")).map_err(|error| format!("{error:#}"))?;
    let mut files = Files::default();
    generator.generate(&mut contract, world, &mut files).map_err(|error| format!("{error:#}"))?;
    // What another version of a generator has made is none of it. There is nothing to remove the first time.
    let _ = fs::remove_dir_all(out);
    for (name, bytes) in files.iter() {
        let path = out.join(name);
        let text = String::from_utf8(bytes.to_vec()).map_err(|error| format!("{name}: {error}"))?;
        let folder = path.parent().unwrap_or(out);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, change(text)));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
