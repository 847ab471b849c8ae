"""Times and weighs the scoring of 214,354 answers, as many as VQAv2's validation split has.

Questions, ten people's answers each and a model's answers are made up (a vocabulary of --words
answers, most of them common ones); then the process scores them and prints seconds of CPU and its
peak memory, which holds questions and answers too.
"""

import argparse
import random
import resource
import time

from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.questions import Question
from densekit.evaluate.scoring import score_answers
from densekit.runs.benchmarks import Answer

QUESTIONS, IMAGES, PEOPLE = 214_354, 40_504, 10


def made(words: int, seed: int = 0) -> tuple[list[Question], list[Answer]]:
    """Questions about images, and one answer to each in another order."""
    rng = random.Random(seed)
    vocabulary = [f"{rng.choice(('the', 'a', ''))} thing {n}, it's." for n in range(words)]

    def said() -> str:
        return vocabulary[min(int(rng.expovariate(1 / 50)), words - 1)]

    questions = [
        Question(
            id=str(number),
            text="What is it?",
            image=str(number % IMAGES),
            gold=tuple(said() for _ in range(PEOPLE)),
        )
        for number in range(QUESTIONS)
    ]
    # A third of the answers are texts that no other answer has: nothing is to be gained by memory.
    answers = [
        Answer(question_id=str(number), text=said() if number % 3 else f"{said()} {number}")
        for number in range(QUESTIONS)
    ]
    rng.shuffle(answers)
    return questions, answers


def main() -> None:
    """Make, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=3_000, help="answers that people give")
    arguments = parser.parse_args()
    questions, answers = made(arguments.words)
    began = time.process_time()
    result = score_answers(get_protocol("vqav2"), questions, answers)
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{result.questions:,} answers scored in {took:.1f} s of CPU; peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
