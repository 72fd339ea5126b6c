//! Files that are written, linked, copied, removed and swept.

use super::*;

#[test]
fn a_program_is_copied_when_it_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mut content = vec![7; 40_000];
    fs::write(&from, &content).unwrap();
    assert!(copy_program(&from, &to).unwrap());
    assert!(!copy_program(&from, &to).unwrap(), "it stands");
    assert!(stands(&to, &File { content: content.clone(), mode: 0o755 }));
    content[39_999] = 8;
    fs::write(&from, &content).unwrap();
    assert!(copy_program(&from, &to).unwrap(), "the last byte differs");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(copy_program(&from, &to).unwrap(), "it could not be run");
    assert!(stands(&to, &File { content, mode: 0o755 }));
    assert!(copy_program(&dir.path().join("none"), &to).is_err());
}

#[test]
fn a_private_file_is_written_once_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let file = File::private("secret");
    assert!(write(&path, &file).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!write(&path, &file).unwrap());
    assert!(write(&path, &File::public("secret")).unwrap(), "a mode is part of a file");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    assert!(remove(&path).unwrap());
    assert!(!remove(&path).unwrap());
}

#[test]
fn every_operation_is_asked_for_and_may_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/key");
    let tale = || {
        make_dir(path.parent().unwrap(), 0o755)?;
        write(&path, &File::private("secret"))?;
        remove(&path)?;
        remove_dir(path.parent().unwrap())
    };
    use Operation::*;
    let all = [MakeDir, Sync, Create, Write, Sync, Rename, Sync, Remove, Sync, RemoveDir, Sync];
    for refused in 0..=all.len() {
        let mut number = 0;
        watch(Some(Box::new(move |operation, _| {
            assert_eq!(operation, all[number]);
            number += 1;
            if number > refused { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })));
        let told = tale();
        watch(None);
        assert_eq!(told.is_ok(), refused == all.len(), "{refused}: {told:?}");
        tale().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_link_is_made_once_and_takes_the_place_of_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("current");
    fs::write(&path, "a file").unwrap();
    assert!(link(&path, Path::new("first")).unwrap());
    assert!(link(&path, Path::new("second")).unwrap());
    assert!(!link(&path, Path::new("second")).unwrap());
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("second"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_file_is_exposed_if_its_folders_are_open_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    write(&path, &File::public("secret")).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!is_exposed(&path));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(is_exposed(&path));
    write(&path, &File::private("secret")).unwrap();
    assert!(!is_exposed(&path));
}

#[test]
fn what_a_killed_write_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".hoist-Ab3dEf", "key", ".other"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::create_dir(dir.path().join(".hoist-folder")).unwrap();
    sweep(dir.path()).unwrap();
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".hoist-folder", ".other", "key"]);
    sweep(&dir.path().join("missing")).unwrap();
}

#[test]
fn nothing_is_renamed_in_when_one_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("missing/b"));
    let file = File::public("x");
    write_all([(a.clone(), &file), (b, &file)]).unwrap_err();
    assert!(!a.exists());
}
