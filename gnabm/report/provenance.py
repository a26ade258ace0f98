"""Where the numbers of a report come from: config, seed, versions, tables, machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from gnabm.report.summary import Summary


def provenance(summary: Summary) -> str:
    """The last section of a report."""
    attributes = summary.attributes
    config = attributes.get("config", {})
    parts = [
        "<section><h2>Provenance</h2>",
        '<div class="two"><div class="block"><h3>Run</h3>',
        _listing(_run(summary)),
        '</div><div class="block"><h3>Machine and versions</h3>',
        _listing(_machine(attributes)),
        "</div></div>",
        _tables(attributes.get("tables") or []),
    ]
    if config:
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
        parts.append(f"<details><summary>Resolved config</summary><pre>{escape(text)}</pre></details>")
    parts.append(f"</section><footer>{_footer(attributes)}</footer>")
    return "".join(parts)


def _footer(attributes: Mapping[str, Any]) -> str:
    version = attributes.get("versions", {}).get("gnabm", "")
    return f"Written by gnabm {escape(str(version))}. The page holds all its data and needs no network.".replace(
        " .", "."
    )


def _listing(entries: Mapping[str, object]) -> str:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in entries.items() if value is not None
    )
    return f"<dl>{rows}</dl>"


def _run(summary: Summary) -> dict[str, object]:
    attributes = summary.attributes
    parameters: Mapping[str, Any] = attributes.get("parameters") or {}
    beta = parameters.get("transmission_rate")
    layers = attributes.get("population", {}).get("layers")
    seconds = attributes.get("seconds")
    startup = float(attributes.get("startup_seconds") or 0)
    stepping = None if seconds is None else max(float(seconds) - startup, 1e-9)
    done = summary.num_agents * summary.steps
    return {
        "Model": attributes.get("config", {}).get("model"),
        "Seed": attributes.get("seed"),
        "Transmission rate": None if beta is None else f"{beta:.6g} per contact",
        "Steps": f"{summary.steps:,} of {summary.steps_wanted:,}",
        "Length of a step": "1 day" if summary.dt == 1 else f"{summary.dt:g} days",
        "Shards": attributes.get("shards"),
        "Contacts": None if not layers else ", ".join(layers),
        "Reproducibility": attributes.get("reproducibility"),
        "Status": summary.status,
        "Simulated in": None if stepping is None else f"{stepping:,.1f} s, after {startup:,.1f} s of start-up",
        "Agent-steps per second": None if stepping is None else f"{done / stepping:,.0f}",
    }


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


def _tables(tables: Sequence[Mapping[str, Any]]) -> str:
    if not tables:
        return ""
    rows = []
    for table in tables:
        assumed = bool(table.get("assumed"))
        flag = f'<span class="flag{"" if assumed else " measured"}">{"assumed" if assumed else "measured"}</span>'
        year = table.get("year")
        rows.append(
            f"<tr><td>{escape(str(table.get('name')))}</td><td>{escape(str(table.get('source')))}</td>"
            f"<td class='num'>{'-' if year is None else escape(str(year))}</td>"
            f"<td>{escape(str(table.get('licence', '')))}</td><td>{flag}</td></tr>"
        )
    return (
        '<div class="block"><h3>Tables behind the population</h3><p class="note">What is assumed has no published '
        "table behind it; <code>--strict</code> refuses it.</p>"
        '<div class="scroll"><table><thead><tr><th>Table</th><th>Source</th><th class="num">Year</th><th>Licence</th>'
        f"<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )
