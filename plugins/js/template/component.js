/** The policy as a component. */

import * as host from "loadline:policy/host@0.1.0";
import * as own from "./policy.js";
import { exported } from "./sdk/js/index.js";

export const policy = exported(own, host);
