"""Images without a container engine: a base by mmdebstrap, the rest by buildah, kept as archives in the cache.

Every image is keyed by what goes into it, so that an unchanged tree builds nothing. The build contexts lie in
``build/images/<name>`` and serve Docker as well.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.archives import ensure_archive
from tests.cluster.build import locked
from tests.cluster.layout import PROJECT, cache_root
from tests.cluster.packages import IMAGES, ensure_packages
from tests.cluster.processes import run

Say = Callable[[str], None]
SUITE = "trixie"
BASE_IMAGE = f"localhost/avalanche-base:{SUITE}"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
PYTHON_OF_IMAGES = "3.13"
PLATFORMS = ("manylinux_2_39_x86_64", "manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")  # fmt: skip
PACKAGES = (
    "operator/avalanche_contract",
    "operator/avalanche_operator",
    "images/backup/avalanche_backup",
)
PRODUCT = {"operator": "operator", "backup": "backup", "drill": "backup"}
"""The images of the product, and the folder beneath ``images`` that each is built from: a target of its Containerfile."""
EXAMPLES = PROJECT / "docs" / "examples" / "images"


@dataclass(frozen=True)
class Image:
    """One built image: its name, its archive, and the key of what went into it."""

    name: str
    archive: Path
    key: str


def build_product(say: Say) -> tuple[Image, ...]:
    """Build the operator's image, the backup image, and the one for drills."""
    return tuple(_product(name, say) for name in PRODUCT)


def build_example(name: str, say: Say) -> Image:
    """Build one image of ``docs/examples/images``."""
    folder = EXAMPLES / name
    wheels = folder / "wheels.txt"
    inputs = sorted(path for path in folder.rglob("*") if path.is_file())
    locked_test = [PROJECT / "requirements" / "test.txt"] if wheels.exists() else []
    key = _key([*inputs, *locked_test])
    tag = f"localhost/avalanche-{name}:{key}"

    def stage(context: Path) -> None:
        shutil.copytree(folder, context, dirs_exist_ok=True)
        if wheels.exists():
            wanted = wheels.read_text().split()
            _download(
                _only(PROJECT / "requirements" / "test.txt", wanted, context / "wheels.lock"),
                context / "wheels",
            )

    return _image(tag, key, folder / "Containerfile", stage, say)


def stage_contexts(say: Say) -> None:
    """Lay the build contexts of the product for whoever builds with Docker."""
    for folder in dict.fromkeys(PRODUCT.values()):
        _stage_product(folder, PROJECT / "build" / "images" / folder)
    for name, folder in PRODUCT.items():
        command = f"docker build -f images/{folder}/Containerfile --target {name} build/images/{folder}"
        say(f"build/images/{folder} is ready: {command}")


def _product(name: str, say: Say) -> Image:
    folder = PRODUCT[name]
    requirements = PROJECT / "requirements" / f"{folder}.txt"
    containerfile = PROJECT / "images" / folder / "Containerfile"
    key = _key([containerfile, requirements, *_sources()])
    tag = f"localhost/avalanche-{name}:dev"
    return _image(tag, key, containerfile, lambda context: _stage_product(folder, context), say, target=name)


def _stage_product(name: str, context: Path) -> None:
    context.mkdir(parents=True, exist_ok=True)
    requirements = PROJECT / "requirements" / f"{name}.txt"
    shutil.copy(requirements, context / "requirements.txt")
    wheelhouse = cache_root() / "wheels" / f"{name}-{_key([requirements])}"
    if not wheelhouse.is_dir():
        unfinished = wheelhouse.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _download(requirements, unfinished)
        unfinished.rename(wheelhouse)
    shutil.rmtree(context / "wheels", ignore_errors=True)
    shutil.copytree(wheelhouse, context / "wheels")
    shutil.rmtree(context / "project", ignore_errors=True)
    # Without isolation: hatchling is among the locked packages of the tests.
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", context / "project", PROJECT,
    )  # fmt: skip


def _image(
    tag: str,
    key: str,
    containerfile: Path,
    stage: Callable[[Path], None],
    say: Say,
    *,
    target: str | None = None,
) -> Image:
    name = tag.removeprefix("localhost/").partition(":")[0]

    def build(archive: Path) -> None:
        ensure_packages(IMAGES, say)
        base = _base(say)
        say(f"building image {tag}")
        context = PROJECT / "build" / "images" / name.removeprefix("avalanche-")
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        stage(context)
        words: list[str | Path] = [
            "--layers",
            "--build-arg",
            f"BASE_IMAGE={base}",
            "--build-arg",
            f"LOCKED={_key(sorted(context.rglob('requirements.txt')) or [containerfile])}",
            "--build-arg",
            f"REVISION={key}",
            "--file",
            containerfile,
            "--tag",
            tag,
            *(("--target", target) if target else ()),
        ]
        _buildah("bud", "--isolation", "chroot", *words, context)
        _buildah("push", "--quiet", tag, f"docker-archive:{archive}:{tag}")

    with locked(cache_root() / "images.lock"):
        return Image(tag, ensure_archive(cache_root() / "images", name, key, build), key)


def _base(say: Say) -> str:
    if not _buildah("images", "--quiet", "--filter", f"reference={BASE_IMAGE}").strip():
        say(f"building the base image from Debian {SUITE}: about half a minute, once")
        work = cache_root() / "base"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        run(
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={BASE_PACKAGES}",
            SUITE,
            work / "root.tar",
        )
        (work / "Containerfile").write_text('FROM scratch\nADD root.tar /\nCMD ["python3"]\n')
        _buildah("bud", "--isolation", "chroot", "--file", work / "Containerfile", "--tag", BASE_IMAGE, work)
        shutil.rmtree(work)
    return BASE_IMAGE


def _buildah(*words: str | Path) -> str:
    root = cache_root() / "buildah"
    places: list[str | Path] = [
        "--root",
        root / "storage",
        "--runroot",
        root / "run",
        "--storage-driver",
        "overlay",
    ]
    return run("buildah", *places, *words, cwd=PROJECT)


def _download(requirements: Path, folder: Path) -> None:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--python-version", PYTHON_OF_IMAGES, "--implementation", "cp", "--abi", "cp313", "--abi", "abi3", "--abi",
        "none", *platforms, "--dest", folder, "--requirement", requirements,
    )  # fmt: skip


def _only(requirements: Path, wanted: Iterable[str], target: Path) -> Path:
    """Write the entries of some packages out of a locked file, with their hashes."""
    text = requirements.read_text().replace("\\\n", "\\\0")
    entries = [line for line in text.splitlines() if line.partition("==")[0] in wanted]
    target.write_text("\n".join(entries).replace("\\\0", "\\\n") + "\n")
    return target


def _sources() -> Iterator[Path]:
    yield PROJECT / "pyproject.toml"
    for package in PACKAGES:
        for folder, folders, files in os.walk(PROJECT / package):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            yield from (Path(folder) / name for name in sorted(files))


def _key(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in (Path(__file__), *paths):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]
