// Greets: the smallest agent that has an input, an event and a result.

import { agent, shape } from "@leasehold/agent";

const name = shape.where(shape.string(), (name) => name !== "", "must not be empty");
const Input = shape.optional(shape.object({ name: shape.optional(name) }));

export default agent(Input, (input) => {
  const greeting = `Hello, ${input?.name ?? "world"}!`;
  console.log(greeting);
  return { greeting };
});
