"""`--help`: every option of every group with a line about it."""

from goldilocks.config.options import card, groups, options

# --- help -----------------------------------------------------------------------------------------


def help_text() -> str:
    """The usage, and every option of every group with the first line of its file."""
    lines = [
        "python train.py [group=option ...] [key=value ...]      train one network",
        "python train.py -m group=option,option key=value,value  train one for each combination",
        "python train.py resume=last                             continue an interrupted run",
        "python train.py --cfg job [...]                         print the configuration, run"
        " nothing",
    ]
    for group in groups():
        lines += ["", f"{group}"]
        lines += [f"  {option:<16} {card(group, option)}" for option in options(group)]
    lines += [
        "",
        "Any key of the configuration: optimizer.lr=0.01 trainer.max_epochs=50"
        " regularization=[dropout,l2]",
    ]
    return "\n".join(lines)
