"""A finished run as an HTTP service; needs the extra ``serve``."""
try:
    from tvdiff_pyg.serving.app import Limits, create_app
    from tvdiff_pyg.serving.server import serve
except ImportError as error:
    raise ImportError(f"serving needs the packages of the extra 'serve' ({error}): pip install \"tvdiff-pyg[serve]\""
                      ) from error

__all__ = ['Limits', 'create_app', 'serve']
