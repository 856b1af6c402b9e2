"""What `POST /v1/events` takes and gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_SAMPLES = 64
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class EventsFields(BaseModel):
    """What is asked about a recording, beside the recording."""

    model_config = ConfigDict(extra="forbid")

    labels: list[Text] | None = Field(
        default=None,
        max_length=200,
        description="Answer with events of these labels alone. Default: all.",
    )
    query: Text | None = Field(default=None, description="What to look for, in your words, instead of labels.")
    task: Text | None = Field(
        default=None,
        description="`sed`, `ag` or `dac`. Default: the fitting one that it was trained for.",
    )
    window: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that the model hears at a time. Default: as trained.",
    )
    samples: int = Field(
        default=0, ge=0, le=MOST_SAMPLES,
        description="Draw so many answers a window: an event's confidence is the share of them that hold it. "
        "0: one greedy answer, with the probability of its tokens.",
    )  # fmt: skip
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least confidence of an event. Default: what is kept with the checkpoint.",
    )
    all: bool = Field(default=False, description="Return events below the threshold too, marked `kept: false`.")
    spectrogram: bool = Field(default=False, description="Add a picture of the recording, for people.")

    @model_validator(mode="after")
    def _one_question(self) -> EventsFields:
        if self.labels is not None and self.query is not None:
            raise ValueError("give labels or a query, not both: a query asks for one thing in your words")
        return self


class EventsRequest(EventsFields):
    """A request in JSON; a file is better sent as multipart, which is read piece by piece."""

    audio: str = Field(description="The recording, base64: a file of any format that FFmpeg reads.", min_length=1)
    filename: str = Field(default="audio", description="What to call it in the answer.", max_length=255)


class FoundEvent(BaseModel):
    """One event of the recording, `[onset, offset)` in seconds from its start."""

    onset: float
    offset: float
    label: str
    confidence: float | None = Field(description="0 to 1; null where the model gives none.")
    kept: bool = Field(default=True, description="Whether it reaches the threshold.")


class Spectrogram(BaseModel):
    """A log-mel spectrogram as a grey PNG: a column a step of time, the lowest frequency in the last row."""

    png: str = Field(description="base64")
    seconds_per_column: float
    hertz: float = Field(description="Of the first row; rows are equally far apart in mel.")


class EventsReply(BaseModel):
    """The events of a recording."""

    object: Literal["events"] = "events"
    file: str
    duration: float = Field(description="Seconds of audio that were listened to.")
    model: str
    task: str
    question: str = Field(description="What the model was asked.")
    confidence_kind: Literal["share", "probability"] | None = Field(
        description="What a confidence is: the share of the samples that hold the event, or its tokens' probability."
    )
    events: list[FoundEvent]
    notes: list[str] = Field(default_factory=list, description="What the caller should know about the answer.")
    seconds: float = Field(description="Time that it took, without waiting.")
    real_time_factor: float = Field(description="`seconds` over `duration`.")
    spectrogram: Spectrogram | None = None


class Progress(BaseModel):
    """A line of an `application/x-ndjson` answer while it is being made."""

    object: Literal["progress"] = "progress"
    waiting: int | None = Field(default=None, description="Requests in front of this one; null once its turn has come.")
    position: float = Field(default=0.0, description="Seconds of audio behind it.")
    duration: float | None = Field(default=None, description="Seconds of audio in all, where the file tells.")


class FileRequest(BaseModel):
    """Events to be written as a file: what `POST /v1/events` gave, or a person has corrected."""

    model_config = ConfigDict(extra="ignore")

    file: str = Field(default="audio", max_length=255, description="The recording's name, which most formats hold.")
    duration: float = Field(ge=0)
    events: list[FoundEvent] = Field(max_length=200_000)


class FileFormat(BaseModel):
    """A format of `POST /v1/events/file`."""

    name: str
    suffix: str = Field(description="What a file's name ends in.")
    about: str


class Look(BaseModel):
    """How a label is drawn: as in every other picture of the run that it was trained in."""

    colour: str
    hatch: str
    ink: str = Field(description="Of the hatch, and of text on it.")


class Limits(BaseModel):
    """What the server refuses."""

    max_upload_mib: int
    max_audio_s: float
    time_limit_s: float
    queue: int
    at_once: int


class Info(BaseModel):
    """What is served, for programs and for the page."""

    model: str
    tasks: list[str]
    classes: list[str] = Field(description="Labels that it was trained on; empty where labels are free text.")
    looks: dict[str, Look] = Field(description="By class.")
    formats: list[FileFormat] = Field(description="What `POST /v1/events/file` writes.")
    limits: Limits
    version: str


def schema_of(*models: type[BaseModel]) -> dict[str, Any]:
    """JSON schemas by name, as an OpenAPI document's `components.schemas`."""
    from pydantic.json_schema import models_json_schema

    _, document = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = document["$defs"]
    return schemas
