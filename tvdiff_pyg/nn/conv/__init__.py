"""Message-passing layers."""
from tvdiff_pyg.nn.conv.tvdiff_conv import TVDiffConv

__all__ = ['TVDiffConv']
