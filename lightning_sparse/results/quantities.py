"""Every quantity that is measured, described once for the tables, the figures, the page and W&B."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import inf

Limits = tuple[float, float]
SHARE: Limits = (0.0, 1.0)
EITHER: Limits = (-1.0, 1.0)
POSITIVE: Limits = (0.0, inf)

MAIN = "Accuracy and robustness"
SALIENCY = "Saliency"
WHY = "What may explain it"
BIASES = "Inductive biases"
COST = "What it costs"
WORDS = "Language"


@dataclass(frozen=True)
class Quantity:
    """What a metric means and how it is shown.

    Attributes:
        metric: as in :class:`~lightning_sparse.results.records.Record`; if it ends in ``_``, all that begin with it.
        name: what a reader calls it, of a family followed by what comes after the ``_``; the metric with spaces if left out.
        says: what it is, for the page, which adds the direction that is better.
        better: ``"higher"``, ``"lower"``, or empty if neither is.
        unit: how it is printed: ``"%"`` (of a share), ``"points"`` (of percent, with a sign), ``"count"`` (three digits, k,
            M) or empty (three decimals).
        limits: the smallest and the largest value that it can have; intervals are clipped to them.
        heading: the part of the page that it belongs to; W&B charts it if it has one. Empty: only the CSV files have it.
        column: whether the table under that heading has a column for it.
        panel: whether the figure under that heading has a panel for it.
        same_images: whether every network is measured on the same images, so that different numbers of images, or an
            undefined value, are worth a warning.
        together: whether several seeds give one number, so that a missing seed leaves no hole.
    """

    metric: str
    name: str = ""
    says: str = ""
    better: str = ""
    unit: str = ""
    limits: Limits = (-inf, inf)
    heading: str = ""
    column: bool = True
    panel: bool = False
    same_images: bool = False
    together: bool = False

    @property
    def group(self) -> str:
        """The first part of a chart's name.

        Example:
            >>> quantity("gini").group, quantity("vog_mean").group
            ('saliency', 'vog')
        """
        return "saliency" if self.heading == SALIENCY else self.metric.partition("_")[0]


# fmt: off
QUANTITIES = (
    Quantity("clean_accuracy", "clean accuracy",
        "Share of the test images that are classified correctly as they are.",
        "higher", "%", SHARE, MAIN, same_images=True),
    Quantity("language_bits", "bits a token",
        "Bits that the next token costs, given those before it. Of bytes they are bits per byte.",
        "lower", "", POSITIVE, WORDS, panel=True, same_images=True),
    Quantity("language_perplexity", "perplexity",
        "Two to the bits a token: among how many equally likely tokens the network would have to choose.",
        "lower", "", POSITIVE, WORDS, panel=True, same_images=True),
    Quantity("robust_accuracy", "robust accuracy",
        "Share of the test images that are classified correctly as they are and under every attack that was run, "
        "each judged by its worst attack. eps bounds the attack: the change of a pixel, where the pixel range is 0 to 1; or "
        "the share of a text's words that are replaced by synonyms, or how far its words move in the embedding. It is an "
        "upper bound: an attack that was not run may do more harm.",
        "higher", "%", SHARE, MAIN, same_images=True),
    Quantity("robust_curve_area", "area under robust accuracy",
        "Mean robust accuracy from eps 0 to the largest eps. It depends on the largest eps.",
        "higher", "", SHARE, MAIN, same_images=True),
    Quantity("robust_eps_half", "eps that halves accuracy", limits=POSITIVE),  # undefined if it never halves
    Quantity("robust_unknown_words", "unknown words",
        "Share of the test texts' words that are not in the vocabulary. No synonym replaces them, so they are no robustness.",
        "", "%", SHARE, MAIN),
    Quantity("robust_replaceable_words", "words with a synonym",
        "Share of the test texts' words that have a synonym in the vocabulary. Only they are attacked.",
        "", "%", SHARE, MAIN),
    Quantity("gini", "Gini index",
        "How concentrated an explanation is: 0 if all pixels, or words of a text, matter alike, near 1 if a few carry all of "
        "it. Concentrated is not the same as right.",
        limits=SHARE, heading=SALIENCY, panel=True),
    Quantity("insertion_deletion_gap", "insertion - deletion gap",
        "Whether the pixels an explanation ranks first are the ones the network uses: the area under the true class's "
        "probability when pixels are added to a black image, most important first, less the area when they are removed in "
        "that order. Words are removed by putting the unknown word in their place. 0 is what a random order gives.",
        "higher", "", EITHER, SALIENCY, panel=True),
    Quantity("max_sensitivity", "max-sensitivity",
        "The largest relative change of an explanation under ten moves of every pixel by at most 0.02, or of every component "
        "of a word's vector by at most 0.02 of a component's size. Lower is steadier; a constant map is steady too.",
        limits=POSITIVE, heading=SALIENCY, panel=True),
    Quantity("dense_agreement", "agreement with dense",
        "Rank correlation of an explanation with that of the dense network of the same seed, on the same image or text. 1 is "
        "the same order of pixels or words, 0 is unrelated.",
        limits=EITHER, heading=SALIENCY, panel=True, together=True),
    Quantity("dense_agreement_top10", "agreement with dense, top 10 %", heading=SALIENCY, column=False, together=True),
    Quantity("clean_cross_entropy", "clean cross-entropy", "Cross-entropy on the test images as they are.",
        "lower", "", POSITIVE, same_images=True),
    Quantity("convergence_delta", "convergence delta",
        "How far integrated gradients miss the sum they must add up to. Near 0 is well integrated.",
        limits=POSITIVE, heading=SALIENCY, column=False),
    Quantity("localisation_", limits=SHARE, heading=SALIENCY),
    Quantity("randomisation_similarity", "",
        "Rank correlation of an explanation with itself after the network's weights were shuffled. Below 0.5 it passes; "
        "above, it shows the image more than what was learned.",
        limits=EITHER, heading=SALIENCY),
    Quantity("randomisation_complexity_rise", heading=SALIENCY, column=False),
    Quantity("difference_clean_accuracy", "clean accuracy less dense, points", "", "higher", "points", EITHER, WHY),
    Quantity("difference_robust_accuracy", "robust accuracy less dense, points",
        "Robust accuracy less that of the dense network of the same seed, on the same images.",
        "higher", "points", EITHER, WHY),
    Quantity("difference_random_steering", "clean accuracy less random steering, points",
        "Clean accuracy less that of the training of the same seed for which as many images were chosen at random.",
        "higher", "points", EITHER, WHY),
    Quantity("corruption_accuracy", "", "", "higher", "", SHARE, same_images=True),
    Quantity("corruption_mean_accuracy", "accuracy, corrupted",
        "Mean accuracy over eight corruptions at three severities. Falling while clean accuracy stays is hidden damage.",
        "higher", "%", SHARE, WHY, panel=True, same_images=True),
    Quantity("shift_consistency", "consistency under shifts",
        "How often two shifted copies of an image get the same class, right or wrong.",
        "higher", "%", SHARE, WHY, panel=True, same_images=True),
    Quantity("curvature_jacobian_norm", "input Jacobian", limits=POSITIVE, heading=WHY, same_images=True),
    Quantity("curvature_jacobian_norm_calibrated", "input Jacobian, calibrated",
        "How steep the calibrated logits are in the pixels, in the mean. Lower is flatter.",
        limits=POSITIVE, heading=WHY, panel=True, same_images=True),
    Quantity("curvature_hessian_eigenvalue", "top Hessian eigenvalue",
        "The largest eigenvalue of the training loss's Hessian in the living weights. Lower is flatter.",
        limits=POSITIVE, heading=WHY, panel=True, same_images=True),
    Quantity("shortcut_accuracy_aligned", "accuracy, own cue", "", "higher", "%", SHARE, WHY, same_images=True),
    Quantity("shortcut_accuracy_absent", "accuracy, no cue", "", "higher", "%", SHARE, WHY, same_images=True),
    Quantity("shortcut_accuracy_conflicting", "accuracy, another's cue", "", "higher", "%", SHARE, WHY, same_images=True),
    Quantity("shortcut_reliance", "reliance on the shortcut",
        "Accuracy with the cue of an image's own class less that with the cue of another class. 0 does not look at the cue.",
        "lower", "", EITHER, WHY, panel=True, same_images=True),
    Quantity("forgotten_share", "forgotten images",
        "Share of images that most sparse networks put in another class than most dense ones. Two groups of dense networks "
        "disagree too.",
        unit="%", limits=SHARE, heading=WHY, together=True),
    Quantity("forgotten_", limits=EITHER, together=True),
    Quantity("vog_forgotten_overlap", "forgotten among the most variable",
        "Of the tenth of images whose gradients varied most over the dense training, the share that is forgotten; to be held "
        "against the share of all.",
        limits=SHARE, heading=WHY, together=True),
    Quantity("vog_mean", limits=POSITIVE),
    Quantity("vog_rank_stability", limits=EITHER),
    Quantity("noise_auroc", "wrong labels found, AUROC",
        "The chance that an image with a wrong label has a higher score than one with a right label. 0.5 tells nothing.",
        limits=SHARE),
    Quantity("noise_wrong_learned", "wrong labels learned",
        "Of the training images with a planted wrong label, the share to which the network gives that label.",
        "lower", "%", SHARE),
    Quantity("noise_right_learned", "right labels learned", "", "higher", "%", SHARE),
    Quantity("transfer_accuracy", "", "", "higher", "", SHARE, same_images=True),
    Quantity("trust_"),
    Quantity("sensitivity_accuracy", "accuracy, one layer pruned", "", "higher", "%", SHARE, same_images=True),
    Quantity("sensitivity_accuracy_change", "accuracy, one layer pruned, less unpruned",
        "Accuracy when one layer alone is pruned, without training, less that of the unpruned network on the same images. "
        "What several layers lose together is another number.",
        "higher", "points", EITHER, same_images=True),
    Quantity("sensitivity_cross_entropy", "cross-entropy, one layer pruned", "", "lower", "", POSITIVE, same_images=True),
    Quantity("sensitivity_cross_entropy_change", "cross-entropy, one layer pruned, less unpruned", "", "lower",
        same_images=True),
    Quantity("sensitivity_connections", "connections of the layer", "", "", "count", POSITIVE),
    Quantity("predictability_mean", "explained by a few weights",
        "Share of what a layer computes that its weights, predicted from a few of them, still compute; the mean over hidden "
        "layers, at the smallest share of weights kept. Below 0 is worse than nothing.",
        limits=(-inf, 1.0), heading=WHY, panel=True, same_images=True),
    Quantity("predictability_explained", "explained by a few weights of a layer", limits=(-inf, 1.0), same_images=True),
    Quantity("predictability_accuracy", "accuracy, weights predicted", "", "higher", "%", SHARE, same_images=True),
    Quantity("predictability_living_inputs", "inputs of a layer that vary", "", "", "count", POSITIVE),
    Quantity("bias_locality_mask", "locality of the mask",
        "How much likelier two connections of a unit of the first layer are neighbours than if units were shuffled within "
        "each pixel. 1 is chance.",
        limits=POSITIVE, heading=BIASES, panel=True),
    Quantity("bias_locality_energy", "locality of squared weights", "The same, each connection weighed by its square.",
        limits=POSITIVE, heading=BIASES, panel=True),
    Quantity("bias_radius_mask", "radius of the mask / chance", limits=POSITIVE, heading=BIASES, column=False),
    Quantity("bias_radius_energy", "radius of squared weights / chance",
        "The root mean square distance of two connections of a unit over that of units shuffled within each pixel.",
        limits=POSITIVE, heading=BIASES),
    Quantity("bias_sharing", "weight sharing", limits=EITHER, heading=BIASES, column=False),
    Quantity("bias_sharing_excess", "weight sharing over chance",
        "Best correlation of a unit's filter with any other's at any shift, less that of the same filters with shuffled "
        "signs. 0 is chance.",
        limits=EITHER, heading=BIASES, panel=True),
    Quantity("bias_kurtosis", "excess kurtosis of pre-activations", heading=BIASES, column=False),
    Quantity("bias_living_units", "living units",
        "Units of the first layer that have a connection; the numbers before are of these.",
        "", "count", POSITIVE, BIASES),
    Quantity("bias_translation_error", "translation error",
        "How fast the calibrated probabilities change with a shift of the image, in probability a pixel.",
        "lower", "", POSITIVE, BIASES, panel=True, same_images=True),
    Quantity("bias_memory_length", "memory, steps",
        "Steps after which the gradient of a recurrent network's last state has fallen below 1/e.",
        limits=POSITIVE, heading=BIASES, panel=True),
    Quantity("living_rows", "living rows of an embedding",
        "Share of the rows that pruning has not emptied: the words that the network still knows.",
        "", "%", SHARE, WORDS, panel=True),
    Quantity("isotropy_partition", "isotropy, min Z / max Z", limits=SHARE, heading=WORDS),
    Quantity("isotropy_cosine", "mean cosine of two rows", limits=EITHER, heading=WORDS),
    Quantity("isotropy_iso", "IsoScore",
        "Over how many of its dimensions an embedding spreads: 1 is all alike. Isotropy is not quality.",
        limits=SHARE, heading=WORDS, panel=True),
    Quantity("word_similarity_wordsim353", "WordSim-353",
        "Rank correlation of the cosine of two word vectors with how alike or related people find the words.",
        "higher", "", EITHER, WORDS, panel=True),
    Quantity("word_similarity_simlex999", "SimLex-999",
        "The same of words that people find alike, and not only related.",
        "higher", "", EITHER, WORDS, panel=True),
    Quantity("word_analogies", "analogies", "Share of analogies answered by vector arithmetic.", "higher", "%", SHARE),
    Quantity("cost_bits", "bits, all",
        "Length of a code of the network and of the training labels given the network, in bits. It ranks networks of one "
        "architecture.",
        "lower", "count", POSITIVE, COST),
    *(
        Quantity(f"cost_{metric}", name, "", "lower", "count", POSITIVE, COST)
        for metric, name in (
            ("bits_mask", "bits, mask"),
            ("bits_values", "bits, values"),
            ("bits_other", "bits, other parameters"),
            ("bits_labels", "bits, labels given the model"),
            ("value_bits", "bits a value"),
            ("bytes_dense", "bytes, dense"),
            ("bytes_bitmap", "bytes, bitmap"),
            ("bytes_csr", "bytes, CSR"),
            ("bytes_entropy", "bytes, entropy-coded"),
            ("bytes_torch_csr", "bytes, torch's CSR"),
            ("parameters", "parameters"),
            ("living", "parameters, living"),
            ("flops_dense", "FLOPs, dense"),
            ("flops", "FLOPs, living"),
            ("peak_memory_inference", "peak bytes, inference"),
            ("peak_memory_training", "peak bytes, training"),
        )
    ),
    Quantity("cost_flops_joint", "FLOPs, living x active",
        "Products of a forward pass whose weight lives and whose input is not zero.", "lower", "count", POSITIVE, COST,
        column=False),
    Quantity("communication_share", "gradients sent",
        "Bytes that the processes of a training have handed to collective operations, over those of whole gradients.",
        "lower", "%", POSITIVE, COST),
    Quantity("activation_duty_entropy", "evenness of use", limits=SHARE),
    Quantity("activation_", unit="%", limits=SHARE),
    Quantity("cost_coded_bits", "bits coded / dense float32",
        "Length of the string from which the network was decoded, as a share of the dense network at 32 bits a number.",
        "lower", "count", POSITIVE, COST),
    *(
        Quantity(f"cost_coded_bits_{part}", f"of it, {name}", "", "lower", "count", POSITIVE, COST)
        for part, name in (
            ("mask", "mask"),
            ("values", "values"),
            ("levels", "grids and codebooks"),
            ("other", "biases, norms, buffers"),
            ("structure", "ranks and widths"),
            ("header", "header"),
        )
    ),
    Quantity("cost_coded_ideal", "bits of an ideal code / dense float32",
        "What a code would take that knows how frequent each symbol is, at 16 bits for every number without levels.",
        "lower", "count", POSITIVE, COST),
    Quantity("cost_size_", "bytes exported,",
        "Size of an exported network: of its file, or of the tensors that its module holds.",
        "lower", "count", POSITIVE, COST),
    Quantity("cost_latency_noise", "time of a second dense copy / dense",
        "What the ratios of times would be if nothing differed: no ratio that is as near to 1 as this one says anything.",
        "", "", POSITIVE, COST),
    Quantity("cost_latency_", "time / dense,",
        "Seconds of a forward pass in eval mode, as a ratio to the dense network timed in the same run.",
        "lower", "", POSITIVE, COST),
    Quantity("cost_throughput_", "images a second,", "", "higher", "count", POSITIVE, COST, column=False),
    Quantity("cost_memory_", "peak memory / dense,",
        "The most bytes that a forward pass in eval mode holds at once, as a ratio to the dense network.",
        "lower", "", POSITIVE, COST),
)
# fmt: on


@cache
def quantity(metric: str) -> Quantity:
    """Look a metric up; one that is not described here gets its own name, no unit and no limits.

    Example:
        >>> quantity("clean_accuracy").unit, quantity("trust_zero_gradients").name, quantity("my_own").name
        ('%', 'trust zero gradients', 'my own')
        >>> quantity("cost_latency_shrink").name
        'time / dense, shrink'
    """
    known = {described.metric: described for described in QUANTITIES}
    families = (name for name in known if name.endswith("_") and metric.startswith(name))
    found = known.get(metric) or known.get(next(families, ""), Quantity(metric))
    rest = metric.removeprefix(found.metric).replace("_", " ")
    name = f"{found.name} {rest}".rstrip(" ,") if found.name else metric.replace("_", " ")
    return replace(found, metric=metric, name=name)
