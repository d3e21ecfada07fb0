/** The page's version: pyproject.toml, package.json and this line are kept equal by a test. */
export const VERSION = '0.1.0';
