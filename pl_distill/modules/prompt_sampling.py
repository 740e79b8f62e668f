"""Which words a detector is asked in training, and what it should find for each.

Source: SAM 3 (arXiv 2511.16719) trains presence with hard negatives, words that the picture does not show. Ours are
words from a list, letters at random, and misspellings of the words that exist, so that a small text encoder learns to
read whole words.
"""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.views import FrameTruth
from pl_distill.losses.detection import PromptTruth


@dataclass(frozen=True)
class Prompt:
    """A question about one picture.

    Args:
        image: Number of the picture in its batch.
        word: What to look for.
        truth: What is there.
    """

    image: int
    word: str
    truth: PromptTruth


@dataclass(frozen=True)
class Vocabulary:
    """What the identities of a data set are called.

    Args:
        animal: The word for every identity that is not among `things`.
        things: Identities that go by their own name: what stands in a pen.
        absent: Words for what no picture shows.
        things_per_image: How many of `things` each picture is asked for, on average, 0-1 each.
        absent_per_image: How many absent words each picture is asked for, on average, 0-1.
    """

    animal: str = "pig"
    things: Sequence[str] = ()
    absent: Sequence[str] = ()
    things_per_image: float = 0.25
    absent_per_image: float = 0.25

    @property
    def words(self) -> list[str]:
        """Every word that finds something."""
        return [self.animal, *self.things]

    def truth(self, word: str, frame: FrameTruth) -> PromptTruth:
        """Say what of a frame a word means."""
        if word in self.things:
            chosen = [i for i, name in enumerate(frame.identities) if name == word]
        elif word == self.animal:
            chosen = [i for i, name in enumerate(frame.identities) if name not in self.things]
        else:
            chosen = []
        return PromptTruth(frame.boxes[chosen], None if frame.masks is None else frame.masks[chosen])

    def ask(self, frames: Sequence[FrameTruth], chance: random.Random) -> list[Prompt]:
        """Ask every picture for the animals, and some for things and for what is absent.

        Args:
            frames: What the B pictures show.
            chance: Draws the questions.
        """
        questions = []
        for image, frame in enumerate(frames):
            words = [self.animal]
            if self.things and chance.random() < self.things_per_image:
                words.append(chance.choice(list(self.things)))
            if chance.random() < self.absent_per_image:
                words.append(self.absent_word(chance))
            questions += [Prompt(image, word, self.truth(word, frame)) for word in words]
        return questions

    def absent_word(self, chance: random.Random) -> str:
        """Give a word that no picture shows."""
        kind = chance.random()
        if self.absent and kind < 0.6:
            return chance.choice(list(self.absent))
        if kind < 0.8:
            word = "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 9)))
        else:
            word = misspell(chance.choice(self.words), chance)
        # a plural still means the thing
        return word if not any(word in (known, known + "s") for known in self.words) else "nothing"


def misspell(word: str, chance: random.Random) -> str:
    """Change a word by one letter: another, one more, one less."""
    place, letter = chance.randrange(len(word)), chance.choice(string.ascii_lowercase)
    changed = chance.choice(
        [
            word[:place] + letter + word[place + 1 :],
            word[:place] + letter + word[place:],
            word[:place] + word[place + 1 :],
        ]
    )
    return changed or letter
