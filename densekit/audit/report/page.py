"""Pages as HTML: templates in which every text is escaped, and stripped of paths and names."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

import densekit
from densekit.audit.report.facts import Chart
from densekit.audit.report.privacy import Scrubber
from densekit.audit.report.svg import draw
from densekit.files.whole import written_whole

PAPER_BIBTEX = """\
@inproceedings{yao2024dense,
  title     = {Dense Connector for {MLLM}s},
  author    = {Yao, Huanjin and Wu, Wenhao and Yang, Taojiannan and Song, Yuxin and Zhang, Mengxi
               and Feng, Haocheng and Sun, Yifan and Li, Zhiheng and Ouyang, Wanli and
               Wang, Jingdong},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024},
  note      = {arXiv:2405.13800}
}"""
KIT_BIBTEX = """\
@software{{densekit,
  title   = {{densekit: the reproducibility kit for "Dense Connector for MLLMs"}},
  version = {{{version}}},
  license = {{Apache-2.0}}
}}"""


def render(template: str, scrub: Scrubber, values: Mapping[str, object]) -> str:
    """A template of this folder with its values; none of them shows what `scrub` takes out."""
    common = {
        "scrub": scrub,
        "style": Markup(_source("style.css")),
        "version": densekit.__version__,
        "bibtex": [PAPER_BIBTEX, KIT_BIBTEX.format(version=densekit.__version__)],
    }
    return _environment().get_template(template).render(**common, **values)


def told_apart(names: Sequence[str]) -> list[str]:
    """Names of runs, numbered where two folders share one."""
    twice = len(set(names)) < len(names)
    return [f"{number}: {name}" if twice else name for number, name in enumerate(names, start=1)]


def write_page(path: Path, text: str) -> Path:
    """Replace a page by one rename; returns where it is."""
    with written_whole(path, flush=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["curve"] = _curve
    return environment


@pass_context
def _finalize(context: Context, value: object) -> object:
    """What happens to every value before it is escaped; markup that was made here stays."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _scrubber(context)(value)


@pass_context
def _curve(context: Context, chart: Chart) -> Markup:
    """A chart's drawing, whose labels are texts too."""
    return Markup(_scrubber(context)(draw(chart)))


def _scrubber(context: Context) -> Scrubber:
    scrub = context["scrub"]
    assert isinstance(scrub, Scrubber)
    return scrub


def _source(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
