"""Stores a model as an overlay: only the files that differ from another model, its base. See make.py."""

import shutil

import formula
from build import read_json

LEAST = 1000  # bytes that an overlay must save


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def in_the_way(path, folder):
    """Whether a model would look at a file that it does not have itself: any but those in other models' modules."""
    if len(path.parts) == 1 or not (folder / "modules.json").exists():
        return True
    return path.parts[0] in [module["path"].split("/")[0] for module in read_json(folder / "modules.json")]


def shrink(root, names, whole=(), bases=None):
    """Turns models into overlays of the one before them in `names` that leaves the fewest bytes; returns all bases.

    `whole` stay as they are, because tests read these folders as they lie there; so do those to which any base would
    bring files they must not have. `bases` are those of models that are overlays already. The bytes of a base that the
    model lacks, and does not look at, count against it.
    """
    bases, known, saved = dict(bases or {}), {}, {}
    for name in [*whole, *(name for name in names if name not in (*whole, *bases))]:
        own, best = files(root / name), LEAST
        for other, theirs in known.items():
            same = [path for path, data in own.items() if theirs.get(path) == data]
            extra = [path for path in theirs if path not in own]
            size = sum(len(own[path]) for path in same) - sum(len(theirs[path]) for path in extra)
            if name not in whole and size > best and not any(in_the_way(path, root / name) for path in extra):
                best, bases[name], saved[name] = size, other, same
        known[name] = {**(known[bases[name]] if name in bases else {}), **own}  # as it will be, put together
    for name, paths in saved.items():
        if len(paths) == len(files(root / name)):  # git keeps no empty folder
            paths.remove(min(paths, key=lambda path: (root / name / path).stat().st_size))
        for path in paths:
            (root / name / path).unlink()
        for folder in sorted((path for path in (root / name).rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
    return bases


def together(root, bases, name, scratch):
    """The model as a folder of its own: its base, and over it the files that differ."""
    if name not in bases:
        return root / name
    target = scratch / name
    if not target.exists():
        for folder in (together(root, bases, bases[name], scratch), root / name):
            shutil.copytree(folder, target, dirs_exist_ok=True)
            formula.expand(target)
    return target
