"""Links of every document to what is outside of it: repository, documentation, paper, how to submit, data."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmark.installation.project import (
    DOCUMENTATION,
    OWNER_PLACEHOLDER,
    REPOSITORY,
    is_placeholder,
    project_urls,
)

PAPER_DOI, PAPER_ARXIV = "10.48550/arXiv.2305.11169", "2305.11169"
DATA_FILES = ("leaderboard.csv", "leaderboard.json")
PREVIEW_FILE = "preview.png"


@dataclass(frozen=True)
class ProjectLink:
    """A link: its text, its address, and what is there."""

    text: str
    address: str
    title: str


@dataclass(frozen=True)
class ProjectAddresses:
    """Addresses of the web that documents name; empty ones are unknown, and left out.

    Attributes:
        repository: address of the repository.
        documentation: address of the documentation.
        site: address at which the site is published, with its last slash.
    """

    repository: str = ""
    documentation: str = ""
    site: str = ""

    @property
    def glossary(self) -> str:
        """Address of the glossary; empty without a repository."""
        return f"{self.repository}/blob/main/docs/glossary.md" if self.repository else ""

    def links(self, data_folder: str | None) -> list[ProjectLink]:
        """The links of a document.

        Args:
            data_folder: path from the document to the folder of the data, such as `../`; None if there are no data.
        """
        links = [
            ProjectLink("Paper (DOI)", f"https://doi.org/{PAPER_DOI}", "Jin & Rinard, ICML 2024, whose method the benchmark began with"),
            ProjectLink(f"arXiv {PAPER_ARXIV}", f"https://arxiv.org/abs/{PAPER_ARXIV}", "The same paper on arXiv"),
        ]  # fmt: skip
        if self.repository:
            links.insert(0, ProjectLink("Repository", self.repository, "Source, tasks and submissions"))
            links.append(
                ProjectLink("Submit a model", f"{self.repository}/blob/main/docs/submitting.md", "How to add a row")
            )
        if self.documentation:
            links.append(ProjectLink("Documentation", self.documentation, "What is measured, and how"))
        if data_folder is not None:
            links += [
                ProjectLink(name.rpartition(".")[2].upper(), data_folder + name, "All figures of the board with their n")
                for name in DATA_FILES
            ]  # fmt: skip
        return links


def web_address(text: str) -> str:
    """An address of the web as an option gives it, without its last slash.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    address = text.rstrip("/")
    if is_placeholder(address) or urlsplit(address).query or urlsplit(address).fragment or not address.isascii():
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected an address of the web such as https://HOST/NAME/PROJECT, without {OWNER_PLACEHOLDER}"
        )
    return address


def read_addresses(repository: str | None = None, site: str | None = None) -> ProjectAddresses:
    """The addresses of a site.

    Args:
        repository: address of the repository; None for that of the project, if it has one.
        site: address at which the site is published; None if it is not known.
    """
    declared = project_urls()
    documentation = declared.get(DOCUMENTATION, "")
    if repository is not None:
        documentation = f"{repository}/tree/main/docs"
    return ProjectAddresses(repository or declared.get(REPOSITORY, ""), documentation, f"{site}/" if site else "")
