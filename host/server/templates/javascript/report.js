// Everything that needs no host, so that `npm test` can try it.

/**
 * Counts the lines and words of a text, and finds its longest word.
 *
 * @param {string} text
 */
export function examine(text) {
  const words = text.split(/\s+/u).filter((word) => word !== "");
  const lines = text.split("\n").length - (text === "" || text.endsWith("\n") ? 1 : 0);
  let longest = "";
  for (const word of words) {
    // By characters: the length of a string counts the halves of some.
    if ([...word].length > [...longest].length) longest = word;
  }
  return { lines, words: words.length, longest };
}
