"""Sphinx settings: ``python -m sphinx -W -b html docs OUT`` (extra ``docs``)."""
from __future__ import annotations

from typing import Any

import tvdiff_pyg

project, author, copyright = 'tvdiff_pyg', 'The tvdiff_pyg developers', '2026, the tvdiff_pyg developers'
version = release = tvdiff_pyg.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx.ext.mathjax']
exclude_patterns = ['_build']
html_theme, html_title = 'furo', f'tvdiff_pyg {version}'

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_inherit_docstrings = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_use_ivar = True

# A name of ours that leads nowhere is an error; those of others are not looked up, so that no network is needed.
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!tvdiff_pyg).*'), ('py:.*', r'tvdiff_pyg\..*\._.*')]


def public_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve ``tvdiff_pyg.a.b.Name`` where ``Name`` is documented as the public ``tvdiff_pyg.a.Name``."""
    *module, name = node.get('reftarget', '').split('.')
    domain = env.get_domain(node.get('refdomain') or 'py')
    while len(module) > 1:
        module.pop()
        found = domain.resolve_any_xref(env, node['refdoc'], app.builder, '.'.join([*module, name]), node, content)
        if found:
            return found[0][1]
    return None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect('missing-reference', public_name)
