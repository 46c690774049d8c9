"""Texts whose words are coloured by what they count for, as HTML, which W&B shows of a job."""

from __future__ import annotations

from html import escape

import numpy as np

from lightning_sparse.results.arrays import Arrays

MOST = 6  # texts of a job, of different classes


def coloured_texts(saved: Arrays, attribution: str) -> str:
    """The first text of each class, six at most, each word on a colour as strong as its number, 0 to the text's largest.

    Args:
        saved: what ``measure_saliency`` stores of texts: ``words`` and maps (n, 1, length), ``labels`` and so on (n,).
        attribution: whose maps.

    Example:
        >>> text = {"words": np.array([["old", "<moss>", ""]]), "gradient": np.array([[[0.0, 2.0, np.nan]]])}
        >>> told = {"labels": np.array([1]), "prediction": np.array([0]), "confidence": np.array([0.5])}
        >>> coloured_texts({**text, **told, "class_names": np.array(["act", "plant"])}, "gradient")  # doctest: +ELLIPSIS
        '<p><b>class plant: act, 50 %</b><br><span style="background:rgba(230,159,0,0.00)" ...2">&lt;moss&gt;</span></p>'
    """
    names = saved.get("class_names", np.array([]))
    shown = []
    for place in np.sort(np.unique(saved["labels"], return_index=True)[1])[:MOST]:
        label, prediction = (
            str(names[number]) if 0 <= number < len(names) else str(number)
            for number in (saved["labels"][place], saved["prediction"][place])
        )
        values = np.nan_to_num(saved[attribution][place].astype(float).flatten())
        top = values.max(initial=0.0) or 1.0
        words = [
            f'<span style="background:rgba(230,159,0,{min(max(value / top, 0.0), 1.0):.2f})" title="{value:.3g}">'
            f"{escape(str(word))}</span>"
            for word, value in zip(saved["words"][place], values, strict=True)
            if word
        ]
        says = escape(f"class {label}: {prediction}, {100 * saved['confidence'][place]:.0f} %")
        shown.append(f"<p><b>{says}</b><br>{' '.join(words)}</p>")
    return "".join(shown)
