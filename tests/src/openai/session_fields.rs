//! What a `session.update` may hold, field by field; a response may override some of it.
//!
//! MCP servers are taken as the official SDK's types have them; nobody lists or calls their tools.

use super::fields::{Field, LONG, Shape, optional, required};

const VOICES: &[&str] = &["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"];

// What a single response may override is shared with `client_events`.
pub(super) const MODALITIES: Shape = Shape::Modalities;
pub(super) const FORMAT: Shape = Shape::Tagged(
    "type",
    &[
        ("audio/pcm", &[required("type", Shape::Any), optional("rate", Shape::Integer(24_000, 24_000))]),
        ("audio/pcmu", &[required("type", Shape::Any)]),
        ("audio/pcma", &[required("type", Shape::Any)]),
    ],
);
pub(super) const VOICE: Shape =
    Shape::Either(&Shape::Word(VOICES), &Shape::Object(&[required("id", Shape::Text(LONG))]), "a string or an object");
pub(super) const MAX_OUTPUT_TOKENS: Shape =
    Shape::Either(&Shape::Word(&["inf"]), &Shape::Integer(1, 4096), "an integer or 'inf'");
pub(super) const TOOLS: Shape = Shape::List(
    &Shape::Tagged(
        "type",
        &[
            (
                "function",
                &[
                    required("type", Shape::Any),
                    required("name", Shape::Text(64)),
                    optional("description", Shape::Text(LONG)),
                    optional("parameters", Shape::OpenObject),
                ],
            ),
            (
                "mcp",
                &[
                    required("type", Shape::Any),
                    required("server_label", Shape::Text(LONG)),
                    optional("server_url", Shape::Text(LONG)),
                    optional("tunnel_id", Shape::Text(LONG)),
                    optional("connector_id", Shape::Text(LONG)),
                    optional("authorization", Shape::Text(LONG)),
                    optional("headers", Shape::Nullable(&Shape::OpenObject)),
                    optional("server_description", Shape::Text(LONG)),
                    optional("allowed_tools", Shape::Nullable(&ALLOWED_TOOLS)),
                    optional("require_approval", Shape::Nullable(&APPROVAL)),
                    optional("allowed_callers", Shape::List(&Shape::Text(LONG), 100)),
                    optional("defer_loading", Shape::Boolean),
                ],
            ),
        ],
    ),
    128,
);
const TOOL_FILTER: &[Field] =
    &[optional("tool_names", Shape::List(&Shape::Text(LONG), 1000)), optional("read_only", Shape::Boolean)];
const ALLOWED_TOOLS: Shape = Shape::ListOr(&Shape::List(&Shape::Text(LONG), 1000), &Shape::Object(TOOL_FILTER));
const APPROVAL: Shape = Shape::Either(
    &Shape::Word(&["always", "never"]),
    &Shape::Object(&[optional("always", Shape::Object(TOOL_FILTER)), optional("never", Shape::Object(TOOL_FILTER))]),
    "a string or an object",
);
pub(super) const TOOL_CHOICE: Shape = Shape::Either(
    &Shape::Word(&["none", "auto", "required"]),
    &Shape::Tagged(
        "type",
        &[
            ("function", &[required("type", Shape::Any), required("name", Shape::Text(64))]),
            (
                "mcp",
                &[
                    required("type", Shape::Any),
                    required("server_label", Shape::Text(LONG)),
                    optional("name", Shape::Nullable(&Shape::Text(64))),
                ],
            ),
        ],
    ),
    "a string or an object",
);
pub(super) const REASONING: Shape =
    Shape::Object(&[optional("effort", Shape::Word(&["minimal", "low", "medium", "high", "xhigh"]))]);
pub(super) const PROMPT: Shape = Shape::Nullable(&Shape::Object(&[
    required("id", Shape::Text(LONG)),
    optional("version", Shape::Text(LONG)),
    optional("variables", Shape::OpenObject),
]));

const TURN_DETECTION: Shape = Shape::Nullable(&Shape::Tagged(
    "type",
    &[
        (
            "server_vad",
            &[
                required("type", Shape::Any),
                optional("threshold", Shape::Decimal(0.0, 1.0)),
                optional("prefix_padding_ms", Shape::Integer(0, 10_000)),
                optional("silence_duration_ms", Shape::Integer(0, 10_000)),
                // 5 to 30 seconds: from the service's OpenAPI description.
                optional("idle_timeout_ms", Shape::Nullable(&Shape::Integer(5_000, 30_000))),
                optional("create_response", Shape::Boolean),
                optional("interrupt_response", Shape::Boolean),
            ],
        ),
        (
            "semantic_vad",
            &[
                required("type", Shape::Any),
                optional("eagerness", Shape::Word(&["low", "medium", "high", "auto"])),
                optional("create_response", Shape::Boolean),
                optional("interrupt_response", Shape::Boolean),
            ],
        ),
    ],
));

const TRANSCRIPTION: Shape = Shape::Nullable(&Shape::Object(&[
    optional("model", Shape::Text(LONG)),
    optional("language", Shape::Text(LONG)),
    optional("languages", Shape::List(&Shape::Text(LONG), 100)),
    optional("keywords", Shape::List(&Shape::Text(LONG), 1000)),
    optional("prompt", Shape::Text(1024)),
    optional("delay", Shape::Word(&["minimal", "low", "medium", "high", "xhigh"])),
]));

const NOISE_REDUCTION: Shape = Shape::Nullable(&Shape::Object(&[
    optional("type", Shape::Word(&["near_field", "far_field"])),
    optional("strength", Shape::Decimal(0.0, 1.0)),
]));

const AUDIO: Shape = Shape::Object(&[
    optional(
        "input",
        Shape::Object(&[
            optional("format", FORMAT),
            optional("noise_reduction", NOISE_REDUCTION),
            optional("transcription", TRANSCRIPTION),
            optional("turn_detection", TURN_DETECTION),
        ]),
    ),
    optional(
        "output",
        Shape::Object(&[
            optional("format", FORMAT),
            optional("voice", VOICE),
            optional("speed", Shape::Decimal(0.25, 1.5)),
        ]),
    ),
]);

/// The `session` of a `session.update`.
pub(super) const SESSION: &[Field] = &[
    required("type", Shape::Word(&["realtime"])),
    optional("model", Shape::Text(LONG)),
    optional("output_modalities", MODALITIES),
    optional("instructions", Shape::Text(LONG)),
    optional("audio", AUDIO),
    optional("tools", TOOLS),
    optional("tool_choice", TOOL_CHOICE),
    optional("parallel_tool_calls", Shape::Boolean),
    optional("reasoning", REASONING),
    optional("max_output_tokens", MAX_OUTPUT_TOKENS),
    optional(
        "truncation",
        Shape::Either(
            &Shape::Word(&["auto", "disabled"]),
            &Shape::Tagged(
                "type",
                &[(
                    "retention_ratio",
                    &[
                        required("type", Shape::Any),
                        required("retention_ratio", Shape::Decimal(0.0, 1.0)),
                        optional(
                            "token_limits",
                            Shape::Object(&[optional("post_instructions", Shape::Integer(0, 128_000))]),
                        ),
                    ],
                )],
            ),
            "a string or an object",
        ),
    ),
    optional(
        "tracing",
        Shape::Nullable(&Shape::Either(
            &Shape::Word(&["auto"]),
            &Shape::Object(&[
                optional("workflow_name", Shape::Text(LONG)),
                optional("group_id", Shape::Text(LONG)),
                optional("metadata", Shape::OpenObject),
            ]),
            "a string or an object",
        )),
    ),
    optional("prompt", PROMPT),
    optional("include", Shape::Nullable(&Shape::List(&Shape::Word(&["item.input_audio_transcription.logprobs"]), 1))),
];
