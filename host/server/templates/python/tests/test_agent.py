import unittest

from agent import Report, examine


class Examine(unittest.TestCase):
    def test_lines_and_words_are_counted_and_the_longest_word_is_found(self) -> None:
        for text, lines, words, longest in [
            ("", 0, 0, ""),
            ("one", 1, 1, "one"),
            ("one three\ntwo\n", 2, 3, "three"),
            ("größe pretty", 1, 2, "pretty"),  # by characters, not by bytes
        ]:
            with self.subTest(text=text):
                self.assertEqual(examine(text), Report(lines, words, longest))


if __name__ == "__main__":
    unittest.main()
