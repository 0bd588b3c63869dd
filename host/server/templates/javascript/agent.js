// Counts the lines and words of a text file, and finds its longest word.

import { agent, shape } from "@leasehold/agent";
import * as events from "@leasehold/agent/events";
import * as fs from "@leasehold/agent/fs";

import { examine } from "./report.js";

/** The `input` of a job. */
const Input = shape.object({ path: shape.string() });

export default agent(Input, ({ path }) => {
  console.log(`reading ${path}`);
  // The one line that needs a grant: `fs.read` on the path. Without it the host answers `permission-denied`, which is
  // thrown, and what the agent throws ends the job.
  const text = fs.readText(path);
  events.progress(1, { total: 2, units: "steps", message: "read" });
  const report = examine(text);
  events.progress(2, { total: 2, units: "steps", message: "counted" });
  return report;
});
