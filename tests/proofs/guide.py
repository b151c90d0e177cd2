"""The thirty rows of the tuning guide, in a few words each, and what is not built yet."""

ADVICE = {
    "G1": "one input a feature, one a pixel: from the data",
    "G2": "one output a predicted value or class, one for binary: from the data",
    "G3": "one to five hidden layers",
    "G4": "the same width everywhere, or a wide first layer and narrowing after it",
    "G5": "add layers before neurons",
    "G6": (
        "start too big, see that it can overfit (`scripts/doctor.py` tries it on a batch),"
        " then regularise"
    ),
    "G7": "squared error; absolute error or Huber with outliers; cross-entropy for classes",
    "G8": "start with small batches",
    "G9": "many epochs and early stopping",
    "G10": "all features on one scale, fitted on the training rows",
    "G11": "the learning rate matters most",
    "G12": "a range test finds the learning rate",
    "G13": "momentum near 1; Nesterov looks ahead",
    "G14": "activations from logistic to SELU",
    "G15": "output function by the target; probabilities only when predicting",
    "G16": "initial weights by activation",
    "G17": "BatchNorm (or LayerNorm) before the activation",
    "G18": "clip gradients by norm rather than by value",
    "G19": "keep the best model, not the last",
    "G20": "dropout, never on the output",
    "G21": "AlphaDropout with SELU",
    "G22": "think before mixing dropout and BatchNorm",
    "G23": "L1 and L2 penalties; weight decay; none on biases and norms",
    "G24": "augment the data",
    "G25": "SGD for the last percent, an adaptive optimizer for speed",
    "G26": "schedules of the learning rate",
    "G27": "a constant rate until all else is tuned",
    "G28": "vanishing and exploding gradients show layer by layer",
    "G29": "follow every run on a dashboard",
    "G30": "for images known and pretrained networks",
}

# What is not there yet, in the words of the page.
# A row of the guide without any option must stand here.
LATER: dict[str, str] = {}
