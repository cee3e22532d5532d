"""A model as plain vector search: exported once, served without the package that trained it (SPEC 7b)."""
from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import torch
from torch import Tensor

from tvdiff_pyg.nn.query_encoder import QueryEncoder
from tvdiff_pyg.retrieval import check_k, id_list, largest

PROGRAM, ENCODER, TABLE = 'encoder.pt2', 'encoder.safetensors', 'table.safetensors'
ITEMS, ABOUT, INDEX = 'items.json', 'export.json', 'index.faiss'
FORMAT = 1


class ExportedRecommender:
    """What ``tvdiff export`` wrote: recommends further items to people from the items that they have seen.

    Args:
        encoder: ``encoder(item, offset)``, lists of items to query vectors; see
            :class:`tvdiff_pyg.nn.query_encoder.QueryEncoder`.
        table: item vectors ``[N, d]``.
        items: what is known of each item, with its original id as ``item``; N of them.
        index: a FAISS index of the table, or ``None`` to search the table itself.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(self, encoder: Any, table: Tensor, items: Sequence[Dict[str, Any]], index: Any = None) -> None:
        if table.size(0) != len(items) or index is not None and index.ntotal != len(items):
            raise ValueError(f"'table' has {table.size(0)} rows, 'items' {len(items)}"
                             + (f", 'index' {index.ntotal}" if index is not None else '')
                             + ': they are not of one export')
        self.encoder, self.table, self.items, self.index = encoder, table, items, index
        self.position = {item['item']: number for number, item in enumerate(items)}

    @classmethod
    def load(cls, folder: Union[str, Path]) -> ExportedRecommender:
        """Read an exported folder.

        Nothing in it is unpickled: the encoder is built from its weights, not from ``encoder.pt2``, which is for other
        programs, and whose format may hold pickles.

        Raises:
            ValueError: not a complete export.
            ImportError: without safetensors, or with an index without faiss.
        """
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(f'reading an export needs safetensors ({error}): pip install safetensors') from error
        folder = Path(folder)
        try:
            about = json.loads((folder / ABOUT).read_text(encoding='utf-8'))
            if about['format'] != FORMAT:
                raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
            items = json.loads((folder / ITEMS).read_text(encoding='utf-8'))
            table = load_file(folder / TABLE)['table']
            encoder = QueryEncoder.from_state(about['encoder'], load_file(folder / ENCODER), table)
            index = None
            if about['index'] is not None:
                try:
                    import faiss
                except ImportError as error:
                    raise ImportError(
                        f'this export has an index ({error}): pip install "tvdiff-pyg[faiss]"') from error
                index = faiss.read_index(str(folder / INDEX))
        except ImportError:
            raise
        except Exception as error:  # safetensors has its own for files that are not its
            raise ValueError(f"{folder} is not a complete export ({' '.join(str(error).split())}): make one with "
                             f"'tvdiff export RUN --out DIR'") from error
        return cls(encoder, table, items, index)

    @torch.no_grad()
    def query(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """Return the query vectors ``[B, d]`` of people who have seen these items, given by position, none twice."""
        if not histories:
            return self.table.new_empty(0, self.table.size(1))
        item = torch.tensor([item for history in histories for item in history], dtype=torch.long)
        offset = torch.tensor([0, *accumulate(len(history) for history in histories[:-1])], dtype=torch.long)
        return self.encoder(item, offset)

    @torch.no_grad()
    def recommend(self, histories: Sequence[Sequence[str]], k: int = 10,
                  deny: Sequence[str] = ()) -> List[List[Dict[str, Any]]]:
        """Return for each person the ``k`` best further items, as dicts with ``score``.

        An approximate index may miss some, and may give fewer than ``k``.

        Args:
            histories: original ids of what each person has seen; repeated ids count once.
            k: length of the lists.
            deny: ids that may not be listed; unknown ones never are.

        Raises:
            ValueError: no people, a person without items, an unknown item in a history, ids that are no lists of text,
                or ``k`` out of range.
        """
        check_k(k, len(self.items))
        if not histories or not all(histories):
            raise ValueError("'histories' must hold people with at least one item each")
        seen = [sorted({self._at(name) for name in id_list(f'histories[{row}]', history)})
                for row, history in enumerate(histories)]
        denied = {self.position[name] for name in id_list('deny', deny) if name in self.position}
        query = self.query(seen)
        out = []
        for row, history in zip(query, seen):
            barred = denied.union(history)
            wanted = min(k + len(barred), len(self.items))
            if self.index is None:
                best = largest((row @ self.table.t()).unsqueeze(0), wanted)
                found, scores = best.items[0].tolist(), best.scores[0].tolist()
            else:
                values, positions = self.index.search(row.unsqueeze(0).numpy(), wanted)
                found, scores = positions[0].tolist(), values[0].tolist()
            out.append([{**self.items[item], 'score': score} for item, score in zip(found, scores)
                        if item >= 0 and item not in barred][:k])
        return out

    def _at(self, name: str) -> int:
        position: Optional[int] = self.position.get(name)
        if position is None:
            raise ValueError(f"item '{name}' is not among the exported items")
        return position
