"""Log densities from elsewhere as targets of ``infer``, and ours handed to other samplers.

``from_numpyro``, ``from_function`` and ``from_bridgestan`` make densities that name their quantities
(``core.NamedDensity``), so that a fit of one is labelled as a fit of a program is. ``to_blackjax`` and ``to_nutpie`` go
the other way. The other libraries are imported when they are used.
"""

from .bridgestan_model import from_bridgestan as from_bridgestan
from .function import from_function as from_function
from .handover import Handover as Handover
from .handover import to_blackjax as to_blackjax
from .handover import to_nutpie as to_nutpie
from .numpyro_model import from_numpyro as from_numpyro
