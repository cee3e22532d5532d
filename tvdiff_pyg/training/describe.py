"""A run's figures and items in words."""
from __future__ import annotations

from typing import Any, Dict, Sequence

from tvdiff_pyg.diagnosis import Diagnosis
from tvdiff_pyg.training.folder import same_split


def describe_item(item: Dict[str, Any]) -> str:
    """Return an item's title and year, as far as they are known."""
    title, year = item.get('title'), item.get('year')
    return f'{title} ({year})' if title and year else title or ''


def describe_run(metrics: Dict[str, Any]) -> str:
    """Return a finished run's figures as a table that says what they were selected on."""
    dropped = metrics['dropped']
    lines = [
        f"{metrics['dataset']}: {metrics['users']} users x {metrics['items']} items, {metrics['pairs']['train']} "
        f"training, {metrics['pairs']['validation']} validation, {metrics['pairs']['test']} test pairs",
        f"dropped: {dropped['test_pairs']} test pairs whose user or item is absent from train"
        f" ({dropped['test_users']} users, {dropped['test_items']} items)"
        + ''.join(f'; {count} {name}' for name, count in (
            ('validation pairs likewise', dropped['validation_pairs']),
            ('test pairs seen before', dropped['test_pairs_seen']),
            ('validation pairs seen before', dropped['validation_pairs_seen']),
            ('repeated pairs', dropped['duplicate_pairs']),
            ('rows below the least rating', dropped.get('low_ratings', 0)),
            ('pairs outside the k-core', dropped.get('k_core_pairs', 0))) if count),
        f"{metrics['model']}, protocol {metrics['protocol']}, seed {metrics['seed']}: " + _selection(metrics),
    ]
    parts = {part: metrics[part] for part in ('validation', 'test') if metrics[part]}
    if metrics['selected_on'] == 'test':
        parts = {f'{part} (selected on test)' if part == 'test' else part: values for part, values in parts.items()}
    width = max(len(name) for name in metrics['test'])
    lines.append(' ' * width + ''.join(f'  {part:>10}' for part in parts))
    for name in metrics['test']:
        lines.append(f'{name:<{width}}' + ''.join(
            f'  {values[name]:>{max(10, len(part))}.4f}' for part, values in parts.items()))
    lines.append(f"{metrics['wall_s']:.0f} s, peak memory {metrics['peak_rss_mb']:.0f} MB, {metrics['device']}")
    lines.extend(str(Diagnosis(**found)) for found in metrics.get('diagnoses', []))
    return '\n'.join(lines)


def _selection(metrics: Dict[str, Any]) -> str:
    if metrics['epoch'] is None:
        return 'solved in closed form, nothing selected'
    on_test = metrics['selected_on'] == 'test'
    return (f"epoch {metrics['epoch']} of 0..{metrics['epochs'] - 1}, "
            + ('SELECTED ON TEST, as the published figures were' if on_test else 'selected on validation')
            + {'max_minutes': ', NOT CONVERGED: out of time',
               'diverged': f", DIVERGED in epoch {metrics['epochs']}"}.get(metrics['stopped'], ''))


def describe_thermodynamics(rows: Sequence[Dict[str, Any]]) -> str:
    """Return runs' differences from their data as a table: totals over users, and what one user has.

    Args:
        rows: for each run ``run``, ``model``, ``dataset``, ``protocol``, ``pairs``, ``split_checksum``, ``users``,
            ``sampled``, ``definition`` and the totals.
    """
    width = max(len('run'), *(len(row['run']) for row in rows))
    lines = [f"{'run':<{width}}  {'model':<10}  {'data set':<16}  {'users':>7}  {'delta U':>20}  "
             f"{'delta S, bits':>20}  {'dU a user':>9}  {'dS a user':>9}"]
    for row in rows:
        cells = []
        for name in ('delta_energy', 'delta_entropy'):
            error = f" ± {row[f'{name}_se']:,.1f}" if row['sampled'] else ''
            cells.append(f"{row[name]:,.1f}{error}".rjust(20))
        users = row['users']
        lines.append(f"{row['run']:<{width}}  {row['model']:<10}  {row['dataset']:<16}  {users:>7,}  {cells[0]}  "
                     f"{cells[1]}  {row['delta_energy'] / users:>9.2f}  {row['delta_entropy'] / users:>9.3f}")
    theirs = rows[0]['definition'] == 'published'
    lines.append("Model minus data, by the definitions of the paper's plots." if theirs else
                 "Model minus data, by our definitions (--published: those of the paper's plots).")
    if any(row['sampled'] for row in rows):
        lines.append('Estimated from a sample of users; ±: standard error.')
    if not same_split(rows):
        parts = sorted({f"{row['dataset']}, {row['protocol']}, {row['pairs']:,} pairs, split "
                        f"{row['split_checksum'][:8]}" for row in rows})
        lines.append(f"These runs are of different data ({'; '.join(parts)}): their totals cannot be compared.")
    return '\n'.join(lines)
