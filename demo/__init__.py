"""The main job on a real cluster, for a person to watch: back up, destroy, restore, compare.

``python -m demo`` tells the story; :func:`run` is the same for a test. What is applied lies in ``docs/examples``,
what makes and destroys the data in ``demo/toolbox``. A second demo works on top of a first one, also of one that
was interrupted.
"""

from demo.comparison import Comparison
from demo.story import run

__all__ = ["Comparison", "run"]
