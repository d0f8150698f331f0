"""Training with the gradient of a whole set.

TensorFlow only: Keras' `fit` has no step that sees more than a batch. The
gradient is summed over chunks, so that memory does not grow with the set.
"""

import csv
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.callbacks.backup import load_state
from tf_spectral.callbacks.backup import save_state
from tf_spectral.callbacks.backup import saved_states


class FullBatchTrainer:
    """Loss and gradient over a whole set, and steps of an optimizer.

    A set is a list of parts `(x, y)`, pairs of arrays.

    Args:
        model: Keras model, not compiled.
        optimizer: Keras optimizer.
        loss: Function of labels and predictions in float64, the mean over
            examples.
        chunk: How many examples are in memory as tensors at a time.
    """

    def __init__(self, model, optimizer, loss, chunk):
        self.model, self.optimizer = model, optimizer
        self._loss, self._chunk = loss, chunk
        optimizer.build(model.trainable_variables)
        self._weights = [v.value for v in model.trainable_variables]
        self._sums = [tf.Variable(tf.zeros_like(w)) for w in self._weights]
        self._loss_sum = tf.Variable(0.0, dtype="float64")
        self._hits = tf.Variable(0, dtype="int64")
        self._start = [np.array(v) for v in self.variables()]

    def variables(self):
        """All that a step changes: variables of model and optimizer."""
        return [*self.model.variables, *self.optimizer.variables]

    def restart(self, learning_rate):
        """Goes back to the first weights, with another learning rate."""
        for variable, value in zip(self.variables(), self._start):
            variable.assign(value)
        self.optimizer.learning_rate = learning_rate

    def measure(self, parts, with_gradient=True):
        """Loss and accuracy over all parts; keeps the gradient for `step`."""
        for total in (*self._sums, self._loss_sum, self._hits):
            total.assign(tf.zeros_like(total))
        for x, y in parts:
            for i in range(0, len(x), self._chunk):
                rows = slice(i, i + self._chunk)
                add = self._add_gradient if with_gradient else self._add_loss
                add(x[rows], y[rows])
        self._count = sum(len(x) for x, _ in parts)
        loss = float(self._loss_sum) / self._count
        return loss, int(self._hits) / self._count

    def step(self):
        """One update by the gradient of the last `measure`."""
        self._apply(1.0 / self._count)

    @tf.function(reduce_retracing=True)
    def _add_loss(self, x, y):
        predictions = self.model(x, training=True)
        # A step may lower the loss by less than float32 resolves.
        labels = tf.cast(y, "float64")
        loss = self._loss(labels, tf.cast(predictions, "float64"))
        total = loss * tf.cast(tf.shape(x)[0], "float64")
        hits = tf.argmax(predictions, -1) == tf.argmax(y, -1)
        self._loss_sum.assign_add(total)
        self._hits.assign_add(tf.math.count_nonzero(hits))
        return total

    @tf.function(reduce_retracing=True)
    def _add_gradient(self, x, y):
        with tf.GradientTape() as tape:
            total = self._add_loss(x, y)
        gradients = tape.gradient(total, self._weights)
        for sum_so_far, gradient in zip(self._sums, gradients):
            sum_so_far.assign_add(gradient)

    @tf.function
    def _apply(self, share):
        self.optimizer.apply([s * tf.cast(share, s.dtype) for s in self._sums])


class FullBatchRun:
    """A run with a row in a log for each update, which can be resumed.

    The row of update t has the loss before it, the block that it moved, the
    local gradient norm at which it did, and the seconds it took. A last row
    has the loss after the last update.

    Args:
        trainer: `FullBatchTrainer`.
        folder: `pathlib.Path`, for `log.csv` and the folder `backup`.
        certified: Whether the steps are those that theorem 4.8 is about.
        evaluate_every: How often the test accuracy is measured, in updates.
        save_every: How often the run is saved, in updates.
    """

    def __init__(
        self, trainer, folder, certified, evaluate_every=10, save_every=50
    ):
        self.trainer, self.folder = trainer, folder
        self.log = folder / "log.csv"
        self._certified = certified
        self._evaluate_every, self._save_every = evaluate_every, save_every
        self._blocks = [
            "/".join(v.path.split("/")[-2:])
            for v in trainer.model.trainable_variables
        ]
        self._first_loss, self._least = None, np.inf
        self.fields = [
            *("update", "loss", "accuracy", "test_accuracy", "block"),
            *("local_gradient_norm", "min_squared_norm", "bound", "seconds"),
            *(f"updates/{block}" for block in self._blocks),
        ]

    def run(self, parts, test, updates):
        """Trains up to that many updates; returns the path of the log."""
        done = self._take_up()
        updates = max(updates, done)
        progress = keras.utils.Progbar(updates, stateful_metrics=["loss"])
        with open(self.log, "a", newline="") as file:
            writer = csv.DictWriter(file, self.fields)
            if not file.tell():
                writer.writeheader()
            for update in range(done + 1, updates + 1):
                row = self._update(update, parts, test)
                writer.writerow(row)
                progress.update(update, [("loss", row["loss"])])
                if update % self._save_every == 0 or update == updates:
                    # What the backup calls done is in the log already.
                    file.flush()
                    files.sync(self.log)
                    self._save(update)
            writer.writerow(self._measure(updates + 1, parts, test))
        files.sync(self.log)
        return self.log

    def _update(self, update, parts, test):
        start = time.perf_counter()
        row = self._measure(update, parts, test)
        counts = self.trainer.optimizer.update_counts
        before = np.array(counts)
        self.trainer.step()
        moved = np.array(counts) - before
        norm = float(self.trainer.optimizer.local_gradient_norm)
        if self._first_loss is None:
            self._first_loss = row["loss"]
        self._least = min(self._least, norm**2)
        row["local_gradient_norm"] = norm
        row["min_squared_norm"] = self._least
        if self._certified:
            row["bound"] = 2 * self._first_loss / update
        row["block"] = " ".join(b for b, n in zip(self._blocks, moved) if n)
        for block, n in zip(self._blocks, moved):
            row[f"updates/{block}"] = int(n)
        row["seconds"] = time.perf_counter() - start
        return row

    def _measure(self, update, parts, test):
        row = {"update": update}
        if (update - 1) % self._evaluate_every == 0:
            row["test_accuracy"] = self.trainer.measure([test], False)[1]
        row["loss"], row["accuracy"] = self.trainer.measure(parts)
        return row

    def _save(self, update):
        save_state(
            self.folder / "backup",
            update,
            self.trainer.variables(),
            kept=lambda updates: updates[-2:],
        )

    def _take_up(self):
        """Restores a stopped run; returns how many updates are done."""
        backup = self.folder / "backup"
        done = load_state(backup, self.trainer.variables())
        if done:
            files.cut_table(self.log, last=done)
            rows = plotting.read_log(self.log)
            if len(rows["update"]) != done:
                sys.exit(
                    f"{self.log}: expected a row of each of {done} updates, "
                    f"Received: {len(rows['update'])} rows"
                )
            self._first_loss = float(rows["loss"][0])
            self._least = float(rows["min_squared_norm"][-1])
            return done
        if not saved_states(backup):
            if self.log.exists():
                sys.exit(
                    f"{self.log} is the log of a run whose backup is gone. "
                    "Give another --out, or remove it."
                )
            self._save(0)
        self.log.unlink(missing_ok=True)
        return 0
