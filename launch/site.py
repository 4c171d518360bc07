"""Hooks of mkdocs (mkdocs.yml): pages that are made from other files, and links out of docs/.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages; docs/config.md gets the table of fields,
from the dataclasses of rae_dit/config and the names of the seed framework in docs/migration.md.
"""

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent.parent))

from configs import default
from rae_dit.config.reference import look_up, sections, typed

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
MARK = "<!-- config fields -->"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites links, and fills in the table of fields."""
    outside = page.file.src_uri in PAGES.values()
    to_root = "../" * page.url.count("/")  # a page x.md is x/index.html
    markdown = re.sub(r'src="(?:docs/)?(images/[^"]+)"', rf'src="{to_root}\1"', markdown)
    markdown = LINK.sub(lambda match: link(match, "" if outside else "docs"), markdown)
    if MARK in markdown:
        table = config_table((ROOT / "docs" / "migration.md").read_text())
        return markdown.replace(MARK, "\n".join(table))
    return markdown


def link(match: re.Match[str], directory: str) -> str:
    """Rewrites a link by where the page's file is: to pages as they are here, to no other files."""
    text, target, anchor = match[1], match[2], match[3] or ""
    if "://" in target or target.startswith("mailto:"):
        return match[0]
    path = posixpath.normpath(posixpath.join(directory, target))
    if path in PAGES:
        return f"[{text}]({PAGES[path]}{anchor})"
    if path.startswith("docs/"):
        return f"[{text}]({path.removeprefix('docs/')}{anchor})"
    if not (ROOT / path).exists():
        return match[0]  # for mkdocs to complain about
    return text if text.strip("`") in path else f"{text} (`{path}`)"


def config_table(migration: str) -> Iterator[str]:
    """Yields the lines of the tables of fields, one for each section of the config."""
    values, seed = default.get_config().to_dict(), seed_names(migration)
    for name, meaning, members in sections():
        yield f"\n## {name or 'config'}\n\n{meaning}\n"
        yield "| field | default | type and range | meaning | seed |"
        yield "|---|---|---|---|---|"
        for field in members:
            cells = (
                f"`{field.path}`",
                code(typed(look_up(values, field.path))),
                field.allowed,
                field.meaning,
                ", ".join(code(there) for there in seed.get(field.path, ())),
            )
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def seed_names(migration: str) -> dict[str, list[str]]:
    """Reads the names that fields have in the seed framework off the first table of the page."""
    table = migration.split("| there | here |")[1].split("\n## ")[0]
    names: dict[str, list[str]] = {}
    for row in re.findall(r"^\| (`.*?) \| (.*) \|$", table, re.MULTILINE):
        there = [name.partition("=")[0].lstrip("-") for name in re.findall(r"`([^`]+)`", row[0])]
        for path in re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)?)=", row[1]):
            known = names.setdefault(path, [])
            known += [name for name in there if " " not in name and name not in known]
    return names


def code(text: str) -> str:
    """Sets a text as code; nothing stays nothing."""
    return f"`{text}`" if text else ""
