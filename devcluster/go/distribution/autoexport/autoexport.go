// Package autoexport takes the place of OpenTelemetry's package of this name, whose exporters of traces, metrics and logs
// are a third of what the registry would compile. Nothing here collects traces.
package autoexport

import (
	"context"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// NewSpanExporter returns an exporter that drops all traces, as the original does with OTEL_TRACES_EXPORTER=none.
func NewSpanExporter(context.Context) (trace.SpanExporter, error) {
	return tracetest.NewNoopExporter(), nil
}
