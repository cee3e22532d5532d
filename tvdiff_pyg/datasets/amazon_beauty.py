"""Amazon-Beauty, the split of the TV-Diff paper."""
from __future__ import annotations

from tvdiff_pyg.datasets.base import InteractionDataset


class AmazonBeauty(InteractionDataset):
    """22,361 users x 12,100 products; 15 test pairs lie outside train and are dropped.

    Takes the arguments, and raises the errors, of :class:`InteractionDataset`.
    """

    name = 'amazon-beauty'
    url = 'https://raw.githubusercontent.com/umsimonchen/TV-Diff/HEAD/dataset/amazon-beauty'
    files = {
        'train.txt': 'c5f9c7f25ea60580bd194092142e94992e45bd7a19f235d768b939e5fad49fc3',
        'test.txt': 'c1a4cf3685eb2e602885218bfb09d6771e3a273daac4785b48e212b05f12cab8',
    }
