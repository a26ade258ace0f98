"""Where the numbers of a report come from: config, seeds, versions, tables, machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import yaml

from gnabm.report.changes import NUMBER, RATE, until
from gnabm.report.figure import Citation
from gnabm.report.replicates import Replicates
from gnabm.report.summary import Summary

_OF = {"tables": "Tables behind the population", "model_tables": "Tables behind the disease"}
"""Attributes of a run that list tables, and what the page calls them."""


def citations(summary: Summary) -> list[Citation]:
    """Every table that a run rests on."""
    return [Citation.of(record) for key in _OF for record in summary.attributes.get(key) or ()]


def provenance(replicates: Replicates, tables: Sequence[str] = (), folder: str = "") -> str:
    """The last section of a report.

    Args:
        replicates: The runs.
        tables: Stems of the tables that belong to no figure.
        folder: Folder of them, beside the page.
    """
    attributes = replicates.first.attributes
    config = attributes.get("config", {})
    parts = [
        "<section><h2>Provenance</h2>",
        '<div class="two"><div class="block"><h3>Run</h3>',
        _listing(_run(replicates)),
        '</div><div class="block"><h3>Machine and versions</h3>',
        _listing(_machine(attributes)),
        "</div></div>",
        *(_tables(title, attributes.get(key) or []) for key, title in _OF.items()),
        _downloads(tables, folder),
    ]
    if config:
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
        parts.append(f"<details><summary>Resolved config</summary><pre>{escape(text)}</pre></details>")
    parts.append(f"</section><footer>{_footer(attributes)}</footer>")
    return "".join(parts)


def _downloads(tables: Sequence[str], folder: str) -> str:
    if not tables:
        return ""
    links = " ".join(f'<a href="{quote(f"{folder}/{stem}.csv")}" download>{escape(stem)}.csv</a>' for stem in tables)
    return f'<div class="block"><h3>All numbers</h3><p class="files">{links}</p></div>'


def _footer(attributes: Mapping[str, Any]) -> str:
    version = str(attributes.get("versions", {}).get("gnabm", ""))
    by = f"gnabm {escape(version)}" if version else "gnabm"
    return f"Written by {by}. The page holds all its data and needs no network; its links lead to the folder beside it."


def _listing(entries: Mapping[str, object]) -> str:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in entries.items() if value is not None
    )
    return f"<dl>{rows}</dl>"


def _run(replicates: Replicates) -> dict[str, object]:
    summary = replicates.first
    attributes = summary.attributes
    parameters: Mapping[str, Any] = attributes.get("parameters") or {}
    beta = parameters.get("transmission_rate")
    population: Mapping[str, Any] = attributes.get("population") or {}
    layers = population.get("layers")
    seeds = ", ".join(str(seed) for seed in replicates.seeds)
    return {
        "Model": attributes.get("config", {}).get("model"),
        "Seeds" if replicates.several else "Seed": seeds if "seed" in attributes else None,
        "Transmission rate": None if beta is None else f"{beta:.6g} per contact{until(summary, (NUMBER, RATE))}",
        "Steps": f"{summary.steps:,} of {summary.steps_wanted:,}",
        "Length of a step": "1 day" if summary.dt == 1 else f"{summary.dt:g} days",
        "Shards": attributes.get("shards"),
        "Contacts": None if not layers else ", ".join(layers),
        "Graph store": population.get("store"),
        "Branched from": _branch(attributes),
        "Reproducibility": attributes.get("reproducibility"),
        "Status": summary.status,
        **_cost(replicates),
    }


def _branch(attributes: Mapping[str, Any]) -> str | None:
    """The run that this one shares its first days with."""
    run = attributes.get("branched_from")
    return None if run is None else f"{run}, day {attributes.get('day'):g}"


def _cost(replicates: Replicates) -> dict[str, object]:
    """Seconds and memory; of the slowest and the largest where there are several runs."""
    spent = [
        (float(run.attributes["seconds"]), float(run.attributes.get("startup_seconds") or 0), run)
        for run in replicates.runs
        if run.attributes.get("seconds") is not None
    ]
    peaks = [peak for run in replicates.runs for peak in run.attributes.get("peak_rss") or ()]
    told: dict[str, object] = {}
    if spent:
        seconds, startup, run = max(spent, key=lambda one: one[0])
        stepping = max(seconds - startup, 1e-9)
        told["Simulated in"] = f"{stepping:,.1f} s, after {startup:,.1f} s of start-up"
        told["Agent-steps per second"] = f"{run.num_agents * run.steps / stepping:,.0f}"
    if peaks:
        told["Peak memory"] = f"{max(peaks) / 2**30:.2f} GiB (the largest process)"
    return told


def _machine(attributes: Mapping[str, Any]) -> dict[str, object]:
    machine: Mapping[str, Any] = attributes.get("machine") or {}
    memory = machine.get("memory_bytes")
    versions: Mapping[str, Any] = attributes.get("versions") or {}
    return {
        "Processor": machine.get("processor"),
        "Cores": machine.get("cores"),
        "Memory": None if memory is None else f"{memory / 2**30:.1f} GiB",
        "System": machine.get("system"),
        **{str(name): str(version) for name, version in versions.items()},
    }


def _tables(title: str, tables: Sequence[Mapping[str, Any]]) -> str:
    """A list of tables, each with source, year and licence; what is assumed or not stated is flagged."""
    if not tables:
        return ""
    rows = []
    for table in tables:
        cited = Citation.of(table)
        kind = "assumed" if cited.assumed else "measured"
        flag = f'<span class="flag {kind}">{kind}</span>'
        missing = '<span class="flag missed">not stated</span>'
        remark = str(table.get("note") or "")
        rows.append(
            f"<tr><td>{escape(cited.name)}</td><td>{escape(cited.source) or missing}"
            + (f"<br><span class='remark'>{escape(remark)}</span>" if remark else "")
            + f"</td><td class='num'>{missing if cited.year is None else cited.year}</td>"
            f"<td>{escape(cited.licence) or missing}</td><td>{flag}</td></tr>"
        )
    return (
        f'<div class="block"><h3>{escape(title)}</h3><p class="note">What is assumed has no published '
        "table behind it; <code>--strict</code> refuses it.</p>"
        '<div class="scroll"><table><thead><tr><th>Table</th><th>Source</th><th class="num">Year</th><th>Licence</th>'
        f"<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )
