"""Numbers that depend on how many images there are, for every parameter of a fine-tuning that is ``auto``.

What the levers of fine-tuning brought: validation top-1 in points, Lite0 at 96 px from a fitted head, one seed (a
point of luck is likely), on 2,000 images of CIFAR-10 and on some 2,000 drawn ones (letters, shapes, textures).

Three epochs, against the recipe, on 2,000 and 1,360 other images:

====================================  ========  =====  ====================================================
lever                                 CIFAR-10  drawn  notes
====================================  ========  =====  ====================================================
the recipe: rate 6e-4, decay 0.8          80.5   91.4  the head alone: 70.8, 74.5; first epoch: 73.4, 80.9
rate 3e-4, stage_decay 1                  -0.6   -1.2  first epoch 0.8 below the head alone
rate 3e-4, stage_decay 0.8                -0.6   -3.3
rate 1e-3, stage_decay 0.8                -0.5   -0.2  first epoch 3.8 below the head alone
batch 16, rate 3e-4, stage_decay 0.8      +0.2   -2.4
batch 16, rate 5e-4, stage_decay 0.7      -0.5   -2.2
drop_connect_rate 0                       -0.8   -0.2  first epoch 2.0 below the head alone
label_smoothing 0.1                       +0.1
from block4a, 4 cached views              +0.1         four epochs in four fifths of the time
mixup 0.2                                        -2.0  not kept; -0.9 on CIFAR-10 at rate 3e-4, stage_decay 1
folded BatchNorm left as it is            +0.2         at rate 3e-4, stage_decay 1; a tenth more processor time
biases of folded BatchNorm frozen         +0.1         likewise; not kept, for simplicity
evaluation.flip                           +1.3   +1.6  likewise
tested at 112 px                          -0.8   +2.1  likewise; not kept: images would be stored twice
====================================  ========  =====  ====================================================

Longer trainings, and what was tried for them, on 4,000 and 850 other images, with ``evaluation.flip``; a parameter
counts beside those of the line "three epochs" or "twelve epochs" above it:

====================================  ========  =====  ====================================================
lever                                 CIFAR-10  drawn  notes
====================================  ========  =====  ====================================================
three epochs                              82.3   92.5  84.9 from 4,500 images of CIFAR-10
color_jitter 0.3                          -0.5   +0.2  0.2 with 4,500 images: 0.0
color_jitter 0.3, erasing 0.5             -0.4   +1.3  with 4,500 images -0.6; erasing 0.25 alone: -0.7
weight_decay 0                            -0.1   +0.1  this and the next four: against 82.6, 91.2
label_smoothing 0.1                       -0.3   +1.6  with another seed: -0.8
freeze_batch_norm false                  -11.0  -12.1  with BatchNorm's momentum at 0.9 instead of 0.99: -10.8
64 px for three epochs, then 96 for two   -1.7   -0.1  a quarter more time; not kept
Keras' RandAugment, 2 of factor 0.3       -3.6         six times the time; not kept
twelve epochs                             81.8   95.8  training loss 0.02, 0.01; 86.0 from 4,500 images
color_jitter 0.3                          +0.6
erasing 0.5                               +0.1
color_jitter 0.3, erasing 0.5             +1.6   +1.2  for few images; loss 0.70 → 0.62, 0.16 → 0.10
color_jitter 0.4, erasing 0.8, crops      -0.3         of 50 to 100 % of the image; not kept
crops of 40 to 100 % of the image         +0.1         not kept
cutmix                                    -1.4         on 2,000 other images, without flip; not kept
rate 3e-4                                 +1.3   -0.9  with color_jitter and erasing: +1.3, too
the same three, 4,500 images              -0.5         with drop_connect_rate 0.4, label_smoothing 0.1 too: 0.0
rate 1.5e-3                               -1.2
stage_decay 1                             -0.7         rate 1e-3, batch 64, not folded, 4,500 images: +0.2
the same, no drop connect                  0.0         4,500 images, weight_decay 0.004, a quarter warm-up
mixup 0.2                                  0.0         4,500 images, training loss 0.50; not kept
three runs of four epochs, averaged       +0.5         4,500 images: weights +0.5, logits +0.7; not kept
at 128 px, seven epochs, rate 4e-4        +2.7         the same time; the head alone: +2.0
at 160 px, four epochs, rate 5e-4         +3.0         two thirds of the time; the head alone: +1.2
at 192 px, from block4a, four views       +0.4         4,500 images, six epochs; the head alone: +4.2
at 192 px, six epochs                     +1.7         4,500 images, a third more time
at 224 px, five epochs                    +1.9         4,500 images, half as much time again
BatchNorm's statistics from the images    -8.4   -6.9  of the head alone; not kept
====================================  ========  =====  ====================================================

From few images of CIFAR-10 (Lite0, 96 px). Nothing is held out, five folds choose the head's strength, and the last
epoch is kept. The table shows points over the head alone, with ``evaluation.flip``, on 2,000 images that no draw
contains. Each column is a single draw, so a point or two may be luck. The start matters most: on the first two
draws a head of stronger regularization ended four and five points above the head of the lowest loss; on the
third, flatter logits did as much.

====================================  ============  ============  ============  ==============
lever (batch 16)                      100 images    250 images    250 (other)   1,000 images
====================================  ============  ============  ============  ==============
the head alone, top-1                         53.5          57.7          61.9            68.7
200 steps, rate 1e-4                          +9.5         +13.7
the same, head of the lowest loss             +5.9          +8.5
200 steps, rate 2e-4                         +10.0         +13.9
400 steps, rate 1e-4                         +10.1
300 steps, 2e-4, jitter and erasing           +9.1
200 steps, 2e-4, head of C = 1e-4                                        +10.1           +10.8
200 steps, 2e-4, logits × 0.1                                            +10.0           +11.7
200 steps, 2e-4, logits × 0.3                                             +9.0
three quarters of the way, rate 2e-4          +9.7         +13.4          +9.5           +10.8
====================================  ============  ============  ============  ==============

Two more draws of 250 images (heads of 62.4 and 60.4 %, 200 steps, rate 2e-4) brought +9.2 and +10.3 with a
``start_loss`` of 0.8, +9.4 and +11.4 with 0.95. The head of the lowest loss brought +8.0 and +10.2 with 0.8. A rate
of 4e-4 brought +8.8 (0.8) and +9.2 (0.95) on the first of them. From 1,000 images 400 steps brought +12.2.

From 1,800 images (one draw, rate 6e-4, batch 32, three epochs) flattening brought nothing: +11.8 instead of +12.2.

After the last epoch (CIFAR-10 as above with a tenth held out; photographs of 8 classes at 160 px by five folds,
from 10 and from all images a class; a column is one draw or cut; the head fitted anew with ``C`` = 0.001):

======================================  ====  ====  ====  ====  ====  ====  =====  =====  ====  ====
images a class                            10    10    25    25    25   100    500  ph.10   all   all
======================================  ====  ====  ====  ====  ====  ====  =====  =====  ====  ====
transfer, head on all stages            54.5  57.0  62.5  62.5  64.9  69.6   77.1   81.2  85.5  86.0
as trained                              65.5  61.3  71.6  70.9  73.3  78.5   84.8   85.6  85.5  86.1
the head fitted anew, on all stages     65.3  61.8  71.7  71.7  74.3  79.7   85.5   85.2  86.5  87.0
the same at three quarters of the way         63.1  71.9  72.1  74.1  79.3   85.3   86.1        87.8
the same half-way                             62.4  71.1  70.5        77.8   84.2   84.3        85.5
======================================  ====  ====  ====  ====  ====  ====  =====  =====  ====  ====

From 180 a class (three draws) 78.4, 79.7 and 81.1 as trained became 79.1, 80.9 and 81.3; from 1,000 (one draw) 87.4
became 87.5. Training on the validation images too, from the start on, brought 0.2 in the mean of six draws.
Fitting that head on mirror images too brought nothing. No ``C`` between 1e-4 and 0.01 was better than 1 / images
by more than luck. Transfer's own logits, added to those of the trained network, made them worse on CIFAR-10.

Held near the start while training, by a decay towards its weights (L2-SP, Li et al. 2018, arXiv:1802.01483), or moved
back to three quarters of the way after it (development draws of CIFAR-10; photographs at 160 px, one cut each; the head
fitted anew in all rows):

==========================  =====  =====  =====  =====  =====  =====  =====  ======  =======
images a class                 10     10     10     10     25     25     25  ph. 10  ph. all
==========================  =====  =====  =====  =====  =====  =====  =====  ======  =======
neither                      64.4   65.6   68.5   66.6   72.8   72.3   70.9    83.0
three quarters of the way    63.7   66.0   67.5   66.8   72.5   72.7   70.2    84.3     87.8
``start_decay`` 50           65.3   65.6   68.8   66.7   73.3   73.3   70.7    84.8     87.4
``start_decay`` 200          64.0   66.0   67.4   67.0   72.2   73.6   71.2
50, and three quarters       63.7   64.5                 72.6   72.9
==========================  =====  =====  =====  =====  =====  =====  =====  ======  =======

From 50 and from 100 a class (two draws each) a ``start_decay`` of 50 brought 76.1 → 76.5, 77.2 → 77.5, 79.4 → 79.7 and
80.7 → 81.0. From 500 (one draw) 85.3 became 85.7 with 15 and 85.4 with 50, which may be luck: not kept.

Not kept, on the first two draws of each size, beside three quarters of the way (63.7, 66.0, 72.5, 72.7): mixup of the
features below the head (Verma et al. 2019, arXiv:1806.05236) with Beta(1, 1), 64.9, 65.4, 72.0 and 73.1, with Beta(0.2,
0.2), 64.8, 64.8, 72.4 and 72.8; fitting the head at 128 px after a training at 96 px (FixRes, Touvron et al. 2019,
arXiv:1906.06423), 66.4, 67.2, 74.2 and 74.3, but training at 128 px in about the same time 68.5, 67.6 and 74.9 on the
first three; the average of the last three epochs' weights, 63.9, 66.0 and 72.4; label smoothing of 0.1, 64.7, 64.0,
72.8 and 73.3.

Ending a training after the first epoch whose mean loss is below a threshold, epochs in brackets. Each column is a
single draw or a single cut into five folds, so a point may be luck; 0.01 lost least on the photographs:

================================  =============  =============  ======================
loss at which training ends       CIFAR-10, 10   CIFAR-10, 25   photographs, all (160)
================================  =============  =============  ======================
never                             62.1 (30)      71.9 (13)      87.9 (18 to 20)
0.01                              61.9 (14)      71.9 (13)      87.4 (8 to 10)
0.03                              62.4 (10)      71.8 (11)      86.0 (6 to 7)
0.1                               61.9 (8)       71.2 (7)       87.0 (5)
================================  =============  =============  ======================

From scratch (2,000 images of CIFAR-10, eight epochs, 39.0 % of 2,000 others) an exponential average of the weights
brought +0.3 at a momentum of 0.98 and +0.1 at 0.995, after up to +2.7 half-way: a schedule that ends at zero does
the same; not kept.
"""

import logging
import math
from typing import Any

from efficientnet_finetuning.parameters import SettledTrainingParameters, TrainingParameters

logger = logging.getLogger(__name__)

# With fewer held-out images a choice by their accuracy is luck: one of 22 images is 4.5 points.
ENOUGH_TO_CHOOSE_BY = 200
_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 200, 3, 30
_LARGE = 1_200
_START_LOSS = 0.8
_START_DECAY = 50.0
_LEARNT = 0.01


def apply_rules(parameters: TrainingParameters, num_train: int, num_validation: int) -> SettledTrainingParameters:
    """The parameters with a number in the place of each ``auto``; numbers that are given stay.

    Below 1,200 training images: batches of 16, some 200 steps but no more than 30 epochs, a rate of 2e-4 from a
    flattened start, to whose weights they decay; training ends earlier once its loss is below 0.01. Above, what was
    measured on thousands: batches of 32, three epochs, a rate of 6e-4. The tables that the numbers come from stand at
    the head of this module.

    Args:
        parameters: of the training.
        num_train: training images.
        num_validation: validation images; 0 where no epoch is to be chosen.
    """
    batch_size = parameters.batch_size
    if batch_size == "auto":
        batch_size = 16 if num_train < _LARGE else 32
    can_choose = parameters.early_stopping_patience or num_validation >= ENOUGH_TO_CHOOSE_BY
    goes_by_steps = parameters.epochs == "auto" and parameters.time_budget_minutes is None
    rules: dict[str, Any] = {
        "batch_size": batch_size,
        "epochs": min(max(_LEAST_EPOCHS, _STEPS // math.ceil(num_train / batch_size)), _MOST_EPOCHS),
        "learning_rate": 2e-4 if num_train < _LARGE else 6e-4,
        "start_loss": _START_LOSS if num_train < _LARGE else None,
        "keep": "best" if can_choose else "last",
        "start_decay": _START_DECAY if num_train < _LARGE else 0.0,
        "stop_at_loss": _LEARNT if num_train < _LARGE and goes_by_steps else None,
    }
    chosen = {name: value for name, value in rules.items() if getattr(parameters, name) == "auto"}
    if chosen:
        told = ", ".join(f"{name} {value}" for name, value in chosen.items())
        validation = f" and {num_validation} validation" if num_validation else ""
        logger.debug("from %d training%s images: %s", num_train, validation, told)
    return SettledTrainingParameters(**dict(parameters) | chosen)
