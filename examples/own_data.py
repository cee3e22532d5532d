"""Recommendations from a table of your own: for the people in it, for people who are not, and for everybody.

    python examples/own_data.py --path likes.csv --columns user item title

A row is one interaction, the third column (what to call an item) may be missing. Ids are text and come back as they
were. Without --path a table is made of a named data set. The two people who come last are left out of the training and
then recommended items from half of theirs. The table, the run and the lists go to --out. Needs the extra `demo`.
"""
import tempfile
from pathlib import Path

import pandas
import torch

from experiment import options  # the file beside this one
from tvdiff_pyg.datasets import load_dataset, statistics
from tvdiff_pyg.training import fit, load_data, load_recipe
from tvdiff_pyg.training.lists import write_lists
from tvdiff_pyg.transforms import RATES


def table(data):
    """All pairs of a data set as a pandas frame, with titles where there are any."""
    parts = [data[RATES][part] for part in ('edge_index', 'val_edge_label_index', 'edge_label_index')
             if part in data[RATES]]
    users, items = torch.cat(parts, dim=1).unique(dim=1).tolist()  # sorted by user
    frame = pandas.DataFrame({'user': [data.user_id[user] for user in users],
                              'item': [data.item_id[item] for item in items]})
    if 'title' in data.item_attributes:
        frame['title'] = [data.item_attributes['title'][item] for item in items]
    return frame


def main(argv=None):
    parser = options(__doc__, epochs=30, seeds=1)
    parser.add_argument('--path', help='CSV file with a header')
    parser.add_argument('--columns', nargs='+', default=['user', 'item', 'title'])
    parser.add_argument('--out', help='a new folder; by default a temporary one')
    args = parser.parse_args(argv)
    out = Path(args.out or tempfile.mkdtemp(prefix='own_data-'))
    out.mkdir(parents=True, exist_ok=True)
    user_column, item_column, *title_column = args.columns

    frame = pandas.read_csv(args.path, dtype=str, keep_default_na=False) if args.path else table(
        load_dataset(args.dataset, args.data_root))
    named = title_column and title_column[0] in frame
    title = dict(zip(frame[item_column], frame[title_column[0]])) if named else {}
    newcomers = frame[user_column].drop_duplicates().tail(2).tolist()
    frame[~frame[user_column].isin(newcomers)].to_csv(out / 'likes.csv', index=False)

    recipe = load_recipe('interaction-file', path=str(out / 'likes.csv'), user_column=user_column,
                         item_column=item_column)  # settings: a start for tables like MovieLens small
    recipe.training.max_epochs = args.epochs
    for name, value in statistics(load_data(recipe.dataset)).items():
        print(f'{name}: {value}')
    run = fit(recipe, out / 'run', seed=args.seed, progress=False)
    print('test part: ' + ', '.join(f'{name} {value:.4f}' for name, value in run.metrics['test'].items()))

    def show(answer, expected=()):
        for rank, item in enumerate(answer['items'], 1):
            print(f"  {rank:2d} {'*' if item['item'] in expected else ' '} {item['item']:<8} "
                  f"{item['score']:.3f}  {title.get(item['item'], '')}")

    people = frame[user_column].drop_duplicates().head(2).tolist()
    for answer in run.recommend(people, k=10):
        print(f"\nPerson {answer['user']} is recommended")
        show(answer)
    answers, known = {}, run.index('item')
    for person in newcomers:
        items = [item for item in frame.loc[frame[user_column] == person, item_column] if item in known]
        history, rest = items[::2], items[1::2]
        answers[person] = run.recommend_history([history], k=10)[0]
        print(f'\nPerson {person}, not trained on, from {len(history)} items (*: among the other {len(rest)})')
        show(answers[person], rest)
    number = write_lists(run.recommend_all(k=20), out / 'lists.jsonl')
    print(f'\n{number} lists of up to 20 items are in {out / "lists.jsonl"}, the run is in {run.folder}')
    return run, frame, answers


if __name__ == '__main__':
    main()
