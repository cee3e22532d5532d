"""Tests of the parser of files."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from tvdiff_pyg.datasets import DataError, read_interactions, tables

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(content: Any, name: str = 'data.txt') -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


@pytest.mark.parametrize('content, options, expected', [
    ('2\t51\t13883\r\n2\t52\r\n10\t007\t1\n', {}, '2:51 2:52 10:007'),
    ('2\t51\n10\t7', {'separator': '\t', 'header': False, 'numeric_ids': True}, '2:51 10:7'),
    ('0 5 3 \n1\n\n7 5\r\n', {}, '0:5 0:3 7:5'),
    ('0 5 3\n1\n7 5\n', {'layout': 'adjacency', 'numeric_ids': True}, '0:5 0:3 7:5'),
    ('0 5 3\r1 4\r', {}, '0:5 0:3 1:4'),
    ('0 5\n0 6\n', {'layout': 'table'}, '0:5 0:6'),
    ('0 5\n0 6\n', {'separator': ' '}, '0:5 0:6'),
    ('a,b\nc,d\n', {}, 'a:b c:d'),
    ('kunde,artikel\n1,2\n3,4\n', {}, '1:2 3:4'),
    ('kunde,artikel\n1,2\n3,4\n', {'header': False}, 'kunde:artikel 1:2 3:4'),
    ('a,b\nc,d\n', {'header': True}, 'c:d'),
    ('time,itemId,userId\n9,i1,u1\n8,i2,u2\n', {}, 'u1:i1 u2:i2'),
    ('user_id:token\titem_id:token\ttimestamp:float\nu1\ti1\t3\n', {}, 'u1:i1'),
    ('u1;i1\nu2;i2\n', {}, 'u1:i1 u2:i2'),
    ('who,what\nu1,i1\n', {'user_column': 'who', 'item_column': 'what'}, 'u1:i1'),
    ('i1,x,u1\ni2,x,u2\n', {'user_column': 2, 'item_column': 0}, 'u1:i1 u2:i2'),
    ('userId,movieId,rating\n1,10,4.0\n1,11,3.5\n2,10,5\n', {'min_rating': 4}, '1:10 2:10'),
    ('1::10\n', {'separator': ':', 'item_column': 2}, '1:10'),
    ('1,10,4\n1,11,3\n', {'min_rating': 3.5, 'rating_column': 2}, '1:10'),
    ('\ufeffuser,item\nü,日本\n', {}, 'ü:日本'),
    ('u1,book\nu2,pen\n', {}, 'u1:book u2:pen'),
])
def test_read(write: Write, content: str, options: dict[str, Any], expected: str) -> None:
    users, items = read_interactions(write(content), **options)
    assert [f'{user}:{item}' for user, item in zip(users, items)] == expected.split()
    assert len(users) == len(items)


def test_read_keeps_quoted_ids_exactly(write: Write) -> None:
    path = write('"user","item"\n" Ann, B. ","say ""hi"""\n"0012","two\nlines"\n')
    assert read_interactions(path) == ([' Ann, B. ', '0012'], ['say "hi"', 'two\nlines'])


@pytest.mark.parametrize('content, options, message', [
    ('', {}, 'data.txt: the file is empty'),
    (' \r\n\n', {}, 'data.txt: the file is empty'),
    (b'1\t2\n3\t\xff\n', {}, 'data.txt, line 2: not UTF-8; convert'),
    ('1\t2\n\n3\n', {}, r'line 3: one column where at least 2 are needed.*.separator.'),
    ('1,2\n3\n', {}, 'line 2: one column'),
    ('1,2,3\n4,5\n', {'item_column': 2}, 'line 2: 2 columns where at least 3'),
    ('1\n2\n', {'layout': 'table'}, 'line 1: one column'),
    ('1\n2\n', {}, 'every line has one column'),
    ('1 2\n3 4\n1 5\n', {}, r"line 3: user '1' already has line 1; .*.layout. to pairs"),
    ('who,what\n1,2\n', {'user_column': 'wer'}, r"no column 'wer'; the columns are 'who', 'what'; set 'user_column'"),
    ('1,2\n', {'item_column': 2}, 'no column 2; there are columns 0 to 1; set'),
    ('userId,thing\n1,2\n', {},
     "none of the columns 'userId', 'thing' has a common name for items; set 'item_column'"),
    ('1,2\n', {'user_column': 1}, 'users and items cannot both come from column 1'),
    ('user,item\n1,2\n', {'min_rating': 4}, r"'min_rating' needs a column of ratings.*'user', 'item'.*.rating_column."),
    ('1\t2\n-3\t4\n', {'numeric_ids': True}, "line 2: '-3' is a negative id"),
    ('1\t2\n3\tx\n', {'numeric_ids': True, 'header': False}, "line 2: 'x' is not a numeric id"),
    ('1\t2\n3\t٣\n', {'numeric_ids': True, 'header': False}, 'line 2: .* is not a numeric id'),
    ('a\tb\n1\t2\n', {'numeric_ids': True, 'header': False}, 'line 1: .* set .header. to true'),
    ('1 2\n-3 4\n', {'numeric_ids': True}, "line 2: '-3' is a negative id"),
    ('1 2\n3 x\n', {'numeric_ids': True}, "line 2: 'x' is not a numeric id"),
    ('1,2\n ,4\n', {}, 'line 2: .* is an empty id'),
    ('1,2\n3,\n', {}, 'line 2: .* is an empty id'),
    ('\t7\n1\t2\n', {}, 'line 1: .* is an empty id'),
    ('userId,itemId,rating\n1,2,5\n1,3,good\n', {'min_rating': 4}, "line 3: 'good' is not a rating"),
    ('userId,itemId,rating\n1,2,nan\n', {'min_rating': 4}, "line 2: 'nan' is not a rating"),
    ('userId,itemId,rating\n1,2,\n', {'min_rating': 4}, "line 2: '' is not a rating"),
    ('userId,itemId,rating\n1,2,3\n', {'min_rating': 4}, 'no interactions with a rating of at least 4'),
    ('user,item\n', {}, 'data.txt: no interactions'),
    ('title,userId,movieId\n' + 'Low,1,2\n' * 20 + 'Good, the Bad,17,5\n', {},
     "line 22: 4 columns where the header names 3; quote each field that holds ','"),
    ('user,item\n1,2,\n', {'separator': ','}, 'line 2: 3 columns where the header names 2'),
    ('1\t2\t"Heroes" album, live\n3\t4\tLow, live\n', {}, r"line 1: .*check the quotes and the separator \('\\t'\)"),
    ('user,item\n"1,2\n', {}, r"line 2: unexpected end of data; check the quotes and the separator \(','\)"),
])
def test_bad_files(write: Write, content: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(write(content), **options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content, expected', [
    ('17;4242;3,5\n17;99;4,0\n18;99;2,5\n', '17:4242 17:99 18:99'),  # decimal commas
    ('17;3,5;4,5\n18;2,5;4,0\n', '17:3,5 18:2,5'),
    ('kunde;artikel;note\n17;4242;3,5\n18;99;4\n', '17:4242 18:99'),
    ('user;item;rating, of 5\n17;4242;3,5\n18;99;4\n', '17:4242 18:99'),
    ('user\titem\ttitle\nu1\ti1\ta, b, c, d\nu2\ti2\te, f, g, h\n', 'u1:i1 u2:i2'),
    ('u1\ti1,x,y\nu2\ti2,x,y\n', 'u1:i1,x,y u2:i2,x,y'),  # a tab stands in no text
    ('u1,i1,a|b\nu2,i2,c|d\n', 'u1:i1 u2:i2'),
    ('u1,i1,a|b|c|d\nu2,i2,e|f|g|h\n', 'u1:i1 u2:i2'),  # a list of fixed length
    ('u1,a;b\nu2,c;d\n', 'u1:a;b u2:c;d'),
    ('"17,1";99\n"18,2";98\n', '17,1:99 18,2:98'),
    ('1|Toy, a story|x\n2|Plain|y\n', '1:Toy,_a_story 2:Plain'),
    ('u1,i1,x\nu2,i2\n', 'u1:i1 u2:i2'),
    ('1;2\n' * 10 + '1;3;4\n', '1:2 ' * 10 + '1:3'),  # the first rows alone
])
def test_the_separator_that_fits_is_guessed(write: Write, content: str, expected: str) -> None:
    users, items = read_interactions(write(content))
    assert [f'{user}:{item}'.replace(' ', '_') for user, item in zip(users, items)] == expected.split()


def test_a_decimal_comma_is_no_rating(write: Write) -> None:
    with pytest.raises(DataError, match="line 1: '3,5' is not a rating; it must be a finite number"):
        read_interactions(write('17;4242;3,5\n18;99;2,5\n'), rating_column=2, min_rating=3)


@pytest.mark.parametrize('content, message', [
    ('# my file\nuser,item\n1,2\n', "line 2: holds ',', and the first line does not; .* set 'separator' and remove"),
    ('My file\n\n1\t2\n', r"line 3: holds '\\t', and the first line does not; .*'layout' to adjacency"),
    ('1 2 3\n4 5,6\n', "line 2: holds ','"),
    ('Ratings, mine\nuser,item,rating\n1,2,3\n', "line 2: 3 columns where the first line has 2; .* set 'separator'"),
    ('user,item\n1,10,4\n2,11,3\n', "line 2: 3 columns where the first line has 2"),  # one name too few
    ('1;a,b\n2;c\n3;d;e\n', "line 2: one column .* set 'separator'"),
    ('17;3,5;late\n18;4,0\n', "columns may be separated by ',' or ';'; set 'separator'"),
    ('1;a,b,c,d\n2;e,f\n', "columns may be separated by ',' or ';'; set 'separator'"),
])
def test_where_no_separator_fits_it_must_be_given(write: Write, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_interactions(write(content))


def test_given_options_are_not_doubted(write: Write) -> None:
    assert read_interactions(write('1,2\n4,5,6\n'), separator=',') == (['1', '4'], ['2', '5'])
    assert read_interactions(write('1 2\n4 5,6\n'), layout='adjacency') == (['1', '4'], ['2', '5,6'])
    assert read_interactions(write('17;4242;3,5\n'), separator=',') == (['17;4242;3'], ['5'])


def test_columns_beyond_a_header_are_told_from_blanks_at_the_end(write: Write) -> None:
    assert read_interactions(write('user item\n1 2 \n3 4  \n'), user_column='user') == (['1', '3'], ['2', '4'])
    with pytest.raises(DataError, match="line 3: 3 columns where the header names 2; .* ' '"):
        read_interactions(write('user item\n1 2\n3 4 5\n'), user_column='user')


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('size', [1, 7, 2 ** 20])
def test_lines_do_not_depend_on_the_size_of_pieces(size: int, end: str, write: Write,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, '_PIECE', size)
    text = end.join(['user,item', '"a', '',  'b",1', '', 'c\x0b\u2028d,2', 'e,3'])
    assert ''.join(tables.lines(text)) == text and [line.rstrip('\r\n') for line in tables.lines(text)
                                                    ] == text.split(end)
    users = [f'a{end}{end}b', 'c\x0b\u2028d', 'e']
    assert read_interactions(write(text.encode())) == (users, ['1', '2', '3'])
    with pytest.raises(DataError, match='line 7: one column'):
        read_interactions(write(text.replace('e,3', 'e').encode()), separator=',')


@pytest.mark.parametrize('content, options, where', [
    ('user,item\n{0},1\n{0},2\n3,1\n', {}, "column 'user'"),
    ('{0},1\n{0},2\n3,1\n', {'header': False}, 'column 0'),
    ('1 {0}\n2 {0}\n', {'layout': 'pairs'}, 'column 1'),
    ('1 {0} 3\n2 {0}\n', {'layout': 'adjacency'}, 'items'),
])
@pytest.mark.parametrize('name', ['NULL', 'nan', 'NA', '\\N', 'None'])
def test_ids_that_may_stand_for_missing_ones_are_told(name: str, content: str, options: dict[str, Any], where: str,
                                                      write: Write) -> None:
    with pytest.warns(UserWarning) as told:
        users, items = read_interactions(write(content.format(name)), **options)
    assert [str(warning.message).split('data.txt, ')[1] for warning in told] == [
        f"{where}: the id is 2 times {name!r}, which is taken for one of that name; where it stands for a missing id, "
        f"remove these rows"]
    assert [*users, *items].count(name) == 2


def test_copies_of_an_id_are_one_text(write: Write) -> None:
    users, items = read_interactions(write('user,item\n' + ''.join(f'user {row % 3},item {row % 5}\n'
                                                                   for row in range(40))))
    assert len({id(user) for user in users}) == 3 and len({id(item) for item in items}) == 5


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='absent.csv: no such file; check the path'):
        read_interactions(tmp_path / 'absent.csv')
    with pytest.raises(DataError, match='cannot be read'):
        read_interactions(tmp_path)


@pytest.mark.parametrize('options, message', [
    ({'layout': 'triples'}, "'layout' must be one of auto, table, adjacency, pairs; got 'triples'"),
    ({'layout': 'adjacency', 'header': False}, 'omit them'),
    ({'separator': '::'}, "'separator' must be one character"),
    ({'rating_column': 2}, "used only with 'min_rating'"),
    ({'min_rating': float('nan')}, 'must be a finite number'),
    ({'header': False, 'user_column': 'u'}, "user_column='u' needs a header"),
])
def test_contradicting_options(write: Write, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_interactions(write('1,2,3\n'), **options)
    assert not isinstance(caught.value, DataError)


def test_pairs_by_white_space(tmp_path):
    """As upstream writes the TV-Diff split of Gowalla: blanks; and with tabs, a third field and CRLF, as the others."""
    path = tmp_path / 'train.txt'
    for text in ('0 11\n0 13\n7 11\n', '0\t11\t5\r\n0\t13\t1\r\n\r\n7\t11\t2\r\n'):
        path.write_bytes(text.encode())
        assert read_interactions(path, layout='pairs', numeric_ids=True) == (['0', '0', '7'], ['11', '13', '11'])
    path.write_text('0 11\n\n7\n')
    with pytest.raises(DataError, match='line 3: one column'):
        read_interactions(path, layout='pairs')
    path.write_text('0 11\n7 -3\n')
    with pytest.raises(DataError, match="line 2: '-3' is a negative id"):
        read_interactions(path, layout='pairs', numeric_ids=True)


def test_blanks_after_a_separator_are_not_part_of_an_id(tmp_path):
    path = tmp_path / 'ratings.csv'
    path.write_text('user, item\nu1, i1\nu2, " i2"\n')
    assert read_interactions(path) == (['u1', 'u2'], ['i1', ' i2'])


@pytest.mark.parametrize('separator', '\t,;|')
@pytest.mark.parametrize('ending', ['\n', '\r\n', '\r'])
def test_blanks_before_a_separator_are_not_part_of_an_id(write: Write, separator: str, ending: str) -> None:
    rows = [['user', 'item '], ['bob ', '42'], ['bob', '42  '], [' a b ', '"4 2 "'], ['"x , \t; | ""y"" "', ' z '],
            ['"two ', 'lines "', 'c " '], ['7', '8 ']]
    text = ending.join(separator.join(row) for row in rows)
    for content in (text, text + ending):
        users, items = read_interactions(write(content), separator=separator)
        assert users == ['bob', 'bob', 'a b', 'x , \t; | "y" ', f'two {separator}lines ', '7']
        assert items == ['42', '42', '4 2 ', 'z', 'c "', '8']
    assert read_interactions(write('1, 2 \n1,2\n'), numeric_ids=True) == (['1', '1'], ['2', '2'])
    with pytest.raises(DataError, match="line 2: '' is an empty id"):
        read_interactions(write('1,2\n3, \n'))
