"""A data set of the catalog as MLCommons Croissant 1.0: JSON-LD that other programs read.

Croissant asks for a hash of every file, and of most nobody published one. Where none is known, and
none was pinned, there stands what the hub's own descriptions have there: the address of the issue
in which Croissant discusses it (NO_HASH), which nobody takes for a hash.
"""

from typing import Any

from densekit.data.catalog import DataSet, FileObject
from densekit.data.doctor.pins import Pin

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""Of the specification, version 1.0."""
REPOSITORY = "repository"
NO_HASH = "https://github.com/mlcommons/croissant/issues/80"
FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".tar.gz": "application/gzip",
    ".tgz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
}


def croissant(data_set: DataSet, pin: Pin | None = None) -> dict[str, Any]:
    """The description of a data set. `pin`: what was verified of it, whose hash of the annotation
    file stands in where none was published.
    """
    distribution: list[dict[str, Any]] = []
    if data_set.repository is not None:
        distribution.append(_repository(data_set.repository, data_set.revision))
    for part in data_set.distribution:
        described = _file_set(part) if part.includes else _file_object(data_set, part, pin)
        distribution.append(described)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": data_set.name,
        "description": _description(data_set),
        "url": data_set.url,
        "license": data_set.license.text,
        "distribution": distribution,
    }


def _description(data_set: DataSet) -> str:
    """The catalog's, with what Croissant has no field for: who says what, repairs, holes."""
    lines = [data_set.description + ".", f"Licence by {data_set.license.source}."]
    lines += [f"Repair: {one.files}: {one.problem} ({one.source})." for one in data_set.repairs]
    lines += [
        f"Not to be had: {one.what}: {one.effect} ({one.source})." for one in data_set.unavailable
    ]
    return " ".join(lines)


def _repository(name: str, revision: str | None) -> dict[str, Any]:
    tree = f"/tree/{revision}" if revision else ""
    return {
        "@type": "cr:FileObject",
        "@id": REPOSITORY,
        "name": REPOSITORY,
        "description": "The git repository on the hub of Hugging Face.",
        "contentUrl": f"https://huggingface.co/datasets/{name}{tree}",
        "encodingFormat": "git+https",
        "sha256": NO_HASH,
    }


def _file_set(part: FileObject) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": part.name,
        "name": part.name,
        "description": part.source,
        "containedIn": {"@id": REPOSITORY},
        "encodingFormat": FORMATS[".parquet"],
        "includes": list(part.includes),
    }


def _file_object(data_set: DataSet, part: FileObject, pin: Pin | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "@type": "cr:FileObject",
        "@id": part.name,
        "name": part.name,
        "description": f"{part.by_hand}; {part.source}" if part.by_hand else part.source,
        "contentUrl": _address(data_set, part),
        "encodingFormat": _format(part),
    }
    if part.content_size is not None:
        described["contentSize"] = part.content_size
    sha256 = part.sha256
    if sha256 is None and pin is not None and part.name == data_set.annotations:
        sha256 = pin.annotations_sha256
    described["sha256"] = sha256 or NO_HASH
    if part.content_url is None and data_set.repository is not None and not part.by_hand:
        described["containedIn"] = {"@id": REPOSITORY}
    return described


def _address(data_set: DataSet, part: FileObject) -> str:
    """Where a part is: inside the repository, or an address of the web."""
    if part.content_url is None:
        return data_set.url if part.by_hand else part.name
    if not part.content_url.startswith("hf://"):
        return part.content_url
    owner, name, *path = part.content_url.removeprefix("hf://datasets/").split("/")
    name, _, revision = name.partition("@")
    return (
        f"https://huggingface.co/datasets/{owner}/{name}/resolve/{revision or 'main'}/"
        f"{'/'.join(path)}"
    )


def _format(part: FileObject) -> str:
    name = (part.content_url or part.name).lower()
    if part.by_hand:
        return "text/html"
    return next(
        (kind for ending, kind in FORMATS.items() if name.endswith(ending)),
        "application/octet-stream",
    )
