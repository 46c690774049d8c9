from .auroc import auroc as auroc
from .intervals import mean_interval as mean_interval
from .intervals import t_interval as t_interval
from .intervals import wilson as wilson
from .paired import holm as holm
from .paired import mcnemar as mcnemar
from .paired import welch as welch
