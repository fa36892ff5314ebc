{{- define "artifact-repository-controller.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "artifact-repository-controller.fullname" -}}
{{- $name := include "artifact-repository-controller.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "artifact-repository-controller.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "artifact-repository-controller.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "artifact-repository-controller.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the ServiceAccount that is there already, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "artifact-repository-controller.selectorLabels" -}}
app.kubernetes.io/name: {{ include "artifact-repository-controller.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Other labels than the operator's, so that its Service does not select the test Pod. */ -}}
{{- define "artifact-repository-controller.testLabels" -}}
app.kubernetes.io/name: {{ include "artifact-repository-controller.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "artifact-repository-controller.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "artifact-repository-controller.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "artifact-repository-controller.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* Rules for the objects, cluster-wide or in each watched namespace. */ -}}
{{- define "artifact-repository-controller.objectRules" -}}
- apiGroups: [artifacts.alien.dev]
  resources: [artifactrepositories]
  verbs: [get, list, watch]
- apiGroups: [artifacts.alien.dev]
  resources: [artifactrepositories/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "artifact-repository-controller.subjects" -}}
- kind: ServiceAccount
  name: {{ include "artifact-repository-controller.serviceAccountName" . }}
  namespace: {{ include "artifact-repository-controller.namespace" . }}
{{- end }}
