//! The life of images and clones, from the first import to the last removal.

use serde_json::json;

use super::world::{World, column};

#[test]
fn an_import_makes_the_next_version() {
    let world = World::new();
    let source = world.source();
    let import =
        ["image", "import", "base", source.to_str().unwrap(), "--label", "os=debian", "--consistency", "crash"];
    let first = world.json(&import);
    assert_eq!(first["name"], "base");
    assert_eq!(first["version"], "base@v1");
    assert_eq!(first["labels"], json!({"os": "debian"}));
    assert_eq!(first["consistency"], "crash");
    assert_eq!(first["inodes"], 5, "a root, two folders, two files");
    assert_eq!(first["bytes_logical"], 10);
    world.write("etc/motd", "new\n");
    assert!(world.import().ok().starts_with("base@v2: 6 objects"));
    let image = world.json(&["image", "show", "base"]);
    assert_eq!(image["version"], "base@v2");
    assert_eq!(column(&image["versions"], "version"), ["base@v1", "base@v2"]);
    assert_eq!(column(&image["versions"], "export"), ["/images/base@v1", "/images/base@v2"]);
}

#[test]
fn a_relative_source_is_the_caller_s() {
    let world = World::new();
    let mut command = super::world::mimeo();
    command.args(["image", "import", "base", "source"]).env("MIMEO_DATA", &world.daemon.data);
    let output = command.current_dir(world.dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let image = world.json(&["image", "show", "base"]);
    assert_eq!(image["versions"][0]["source"], world.source().to_str().unwrap());
}

#[test]
fn clones_are_made_by_name_and_by_number() {
    let world = World::with_image();
    let one = world.json(&["clone", "create", "base", "solo"]);
    assert_eq!(one, json!({"image": "base", "version": "base@v1", "clones": 1, "names": ["solo"]}));
    let many = ["clone", "create", "base@v1", "--count", "3", "--name", "desk-{:04}", "--label", "pool=demo"];
    assert_eq!(world.json(&many)["names"], json!(["desk-0000", "desk-0001", "desk-0002"]));
    let all = world.json(&["clone", "ls"]);
    assert_eq!(column(&all["clones"], "name"), ["desk-0000", "desk-0001", "desk-0002", "solo"]);
    let pool = world.json(&["clone", "ls", "--select", "pool=demo"]);
    assert_eq!(pool["clones"].as_array().unwrap().len(), 3);
    assert_eq!(pool["clones"][0]["labels"], json!({"pool": "demo"}));
    assert_eq!(pool["clones"][0]["export"], "/clones/desk-0000");
}

#[test]
fn a_long_listing_is_one_document() {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "--count", "2500", "--name", "n{}"]).ok();
    let clones = world.json(&["clone", "ls"]);
    assert_eq!(clones["clones"].as_array().unwrap().len(), 2500);
    assert_eq!(world.run(&["clone", "ls"]).ok().lines().count(), 2501);
}

#[test]
fn labels_are_set_and_removed() {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "a", "--label", "x=1"]).ok();
    let labelled = world.json(&["clone", "label", "a", "y=2", "x-"]);
    assert_eq!(labelled["clones"][0]["labels"], json!({"y": "2"}));
    world.run(&["clone", "create", "base", "b", "--label", "y=2"]).ok();
    let both = world.json(&["clone", "label", "--select", "y=2", "z=3"]);
    assert_eq!(column(&both["clones"], "name"), ["a", "b"]);
    assert_eq!(both["clones"][1]["labels"], json!({"y": "2", "z": "3"}));
    assert_eq!(world.json(&["image", "set", "base", "os=debian"])["labels"], json!({"os": "debian"}));
    assert_eq!(world.json(&["image", "set", "base", "os-"])["labels"], json!({}));
}

#[test]
fn versions_have_labels_and_images_are_selected_by_theirs() {
    let world = World::with_image();
    world.run(&["image", "tag", "base@v1", "stable"]).ok();
    let set = world.json(&["image", "set", "base@stable", "tested=yes", "by=me"]);
    assert_eq!(set["versions"][0]["labels"], json!({"tested": "yes", "by": "me"}));
    assert_eq!(set["labels"], json!({}), "the image has its own");
    assert_eq!(world.run(&["image", "set", "base@v1", "by-"]).ok().trim(), "base@v1: tested=yes");
    world.run(&["image", "set", "base@v1", "--untag", "stable"]).refused(1, &["base@v1", "image set base"]);
    world.run(&["image", "import", "other", world.source().to_str().unwrap()]).ok();
    world.run(&["image", "set", "other", "old=yes"]).ok();
    assert_eq!(column(&world.json(&["image", "ls", "--select", "old"])["images"], "name"), ["other"]);
    world.run(&["clone", "create", "other", "desk"]).ok();
    world.run(&["image", "rm", "base", "other"]).refused(1, &["\"other\"", "1 clones"]);
    assert_eq!(column(&world.json(&["image", "ls"])["images"], "name"), ["base", "other"], "all or none");
    world.run(&["clone", "rm", "desk"]).ok();
    assert_eq!(world.json(&["image", "rm", "--select", "old=yes"]), json!({"names": ["other"]}));
    assert_eq!(column(&world.json(&["image", "ls"])["images"], "name"), ["base"]);
}

#[test]
fn a_tag_names_a_version_until_it_is_moved() {
    let world = World::with_image();
    assert_eq!(world.json(&["image", "tag", "base@v1", "stable"])["tags"], json!({"stable": "base@v1"}));
    world.write("more", "x");
    world.import().ok();
    assert_eq!(world.json(&["clone", "create", "base@stable", "a"])["version"], "base@v1");
    assert_eq!(world.json(&["image", "tag", "base@v2", "stable"])["tags"], json!({"stable": "base@v2"}));
    assert_eq!(world.json(&["clone", "create", "base@stable", "b"])["version"], "base@v2");
    assert_eq!(world.json(&["image", "set", "base", "--untag", "stable"])["tags"], json!({}));
}

#[test]
fn a_diff_lists_what_was_added_modified_and_deleted() {
    let world = World::with_image();
    world.write("etc/hostname", "other\n");
    world.write("etc/new line\n", "");
    std::fs::remove_file(world.source().join("bin/sh")).unwrap();
    world.import().ok();
    let text = world.run(&["image", "diff", "base@v1", "base@v2"]).ok();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("M ") || line.contains("host")).collect();
    let last = lines.pop().unwrap();
    lines.sort_unstable();
    assert!(lines[0].starts_with("A ") && lines[0].ends_with("  etc/new line\\x0a"), "{lines:?}");
    assert!(lines[1].starts_with("D ") && lines[1].ends_with("  bin/sh"), "{lines:?}");
    assert!(lines[2].contains(" ->        6 B  data,attributes  etc/hostname"), "{lines:?}");
    assert!(last.starts_with("1 path added, 1 path removed, "), "{last}");
    let document = world.json(&["image", "diff", "base@v1", "base"]);
    let changes = document["changes"].as_array().unwrap();
    assert_eq!(changes.len(), text.lines().count() - 1);
    let hostname = changes.iter().find(|change| change["path"] == "etc/hostname").unwrap();
    assert_eq!(hostname["what"], json!(["data", "attributes"]));
    assert_eq!(hostname["bytes_new"], json!(6));
    assert_eq!(hostname.get("bytes_private"), None);
    assert_eq!((&document["paths_added"], &document["paths_removed"]), (&json!(1), &json!(1)));
    assert_eq!(document["paths_changed"], json!(changes.len() - 2));
    let none = json!({"changes": [], "paths_added": 0, "paths_removed": 0, "paths_changed": 0, "bytes_old": 0,
                      "bytes_new": 0});
    assert_eq!(world.json(&["image", "diff", "base", "base"]), none);
    let clone = world.json(&["clone", "create", "base@v1", "desk"]);
    assert_eq!(clone["version"], "base@v1");
    let mut of_a_clone = none;
    of_a_clone["bytes_private"] = json!(0);
    assert_eq!(world.json(&["clone", "diff", "desk"]), of_a_clone);
}

/// Two versions, three clones of the first, two of them in a pool.
fn fleet() -> World {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "--count", "2", "--name", "p{}", "--label", "pool=demo"]).ok();
    world.run(&["clone", "create", "base", "solo"]).ok();
    world.write("more", "x");
    world.import().ok();
    world
}

fn versions(world: &World) -> Vec<String> {
    column(&world.json(&["clone", "ls"])["clones"], "version").into_iter().map(str::to_owned).collect()
}

#[test]
fn repoint_takes_all_clones_the_selected_or_the_named() {
    let world = fleet();
    let done = world.json(&["repoint", "base", "--to", "base@v2", "--select", "pool=demo"]);
    assert_eq!((&done["version"], &done["clones"], &done["unchanged"]), (&json!("base@v2"), &json!(2), &json!(0)));
    assert!(done["operation"].as_str().unwrap().starts_with("op-"));
    assert_eq!(versions(&world), ["base@v2", "base@v2", "base@v1"]);
    let done = world.json(&["repoint", "base", "--to", "base@v2", "--activate", "live"]);
    assert_eq!((&done["clones"], &done["unchanged"]), (&json!(1), &json!(2)));
    world.run(&["repoint", "base", "--to", "base@v1", "--clone", "p0", "solo"]).ok();
    assert_eq!(versions(&world), ["base@v1", "base@v2", "base@v1"]);
}

#[test]
fn a_repoint_leaves_pins_until_they_are_dropped() {
    let world = fleet();
    let done = world.json(&["repoint", "base", "--to", "base@v2"]);
    let pins = world.json(&["pins"]);
    assert_eq!(column(&pins["pins"], "name"), ["p0", "p1", "solo"]);
    assert_eq!(column(&pins["pins"], "version"), ["base@v1"; 3]);
    assert_eq!(pins["pins"][0]["operation"], done["operation"]);
    assert_eq!(world.json(&["pins", "--clone", "solo"])["pins"].as_array().unwrap().len(), 1);
    assert_eq!(world.json(&["pins", "--drop", "--clone", "solo"]), json!({"pins": 1, "names": ["solo view 1"]}));
    assert_eq!(world.json(&["pins", "--drop", "--select", "pool=demo"])["pins"], 2);
    assert_eq!(world.json(&["pins"]), json!({"pins": []}));
}

#[test]
fn what_is_removed_is_gone() {
    let world = fleet();
    world.run(&["image", "rm", "base"]).refused(1, &["\"base\"", "3 clones"]);
    assert_eq!(world.json(&["clone", "rm", "p0", "p1"]), json!({"names": ["p0", "p1"]}));
    world.run(&["clone", "show", "p0"]).refused(1, &["\"p0\""]);
    world.run(&["image", "rm", "base@v1"]).ok();
    let image = world.json(&["image", "show", "base"]);
    assert_eq!(image["versions"][0]["removed"], true, "solo still reads it");
    world.run(&["clone", "create", "base@v1", "late"]).refused(1, &["base@v1"]);
    world.run(&["clone", "rm", "solo"]).ok();
    world.run(&["image", "rm", "base"]).ok();
    assert_eq!(world.json(&["image", "ls"]), json!({"images": []}));
}

#[test]
fn df_counts_what_is_there() {
    let world = fleet();
    let usage = world.json(&["df"]);
    assert_eq!((&usage["images"], &usage["versions"], &usage["clones"]), (&json!(1), &json!(2), &json!(3)));
    for field in ["chunks", "bytes_logical", "bytes_raw", "bytes_stored", "bytes_cache_capacity", "bytes_disk_total"] {
        assert!(usage[field].as_u64().unwrap() > 0, "{field}: {usage}");
    }
    assert!(world.run(&["df"]).ok().contains("disk free:"));
}

#[test]
fn everything_survives_a_stop_and_a_kill() {
    let mut world = fleet();
    world.run(&["repoint", "base", "--to", "base@v2", "--clone", "solo"]).ok();
    let before = (world.json(&["image", "ls"]), world.json(&["clone", "ls"]), world.json(&["pins"]));
    for clean in [true, false] {
        let data = world.daemon.data.clone();
        let old = std::mem::replace(&mut world.daemon, super::world::Daemon::start(&world.dir.path().join("other")));
        if clean {
            assert_eq!(old.stop(), 0)
        } else {
            old.kill()
        }
        world.daemon = super::world::Daemon::start(&data);
        let after = (world.json(&["image", "ls"]), world.json(&["clone", "ls"]), world.json(&["pins"]));
        assert_eq!(after, before, "clean: {clean}");
    }
}
